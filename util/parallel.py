"""The same work on many files: several processes, a progress bar, and a clean stop at Ctrl-C."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from util.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 32


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str, chunk: int = CHUNK,
    unit: str = "photo",
) -> Iterator[Result]:  # fmt: skip
    """`function(item)` of each item, in order, behind a progress bar (none where stderr is not a terminal).

    What there is to hand over must be picklable. Processes take `chunk` items at a time; no more than that are done in
    this one. At a Ctrl-C, or when the caller stops iterating, the items begun are finished and no others are. An error
    of `function` ends the work and is raised.
    """
    bar = {"total": len(items), "desc": title, "unit": unit, "disable": None}
    if workers == 1 or len(items) <= chunk:  # less work than starting a process
        yield from tqdm(map(function, items), **bar)
        return
    executor = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield from tqdm(executor.map(function, items, chunksize=chunk), **bar)
    except BrokenProcessPool as error:
        raise UserError(f"{title}: a process was killed, perhaps for want of memory; try fewer --workers") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the main process decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed main process cannot tell its workers, which would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def ignore_signals_in_worker() -> None:
    """In a loader's process: a Ctrl-C reaches the whole process group, and the main process decides when to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def available_shared_memory() -> int | None:
    """Bytes that could be put into memory shared by processes, None where the system does not tell (not Linux).

    The least of what the kernel calls available, what the container's limit leaves, and what /dev/shm holds.
    """
    try:
        meminfo = Path("/proc/meminfo").read_text()
        limits = [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
        limits.append(shutil.disk_usage("/dev/shm").free)
    except (OSError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, KeyError):  # no such limit ("max"), or another kind of container
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limits.append(left + int(facts["active_file"]) + int(facts["inactive_file"]))  # files kept in case of need
    return max(0, min(limits))
