"""Work in several processes: mapping a function over files, a clean stop at Ctrl-C, shared memory."""

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

# Ctrl-C; kill and clusters; a closed terminal; what clusters can send before they kill (SLURM's --signal)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str,
    chunk: int = 32, unit: str = "photo",
) -> Iterator[Result]:  # fmt: skip
    """Yield `function(item)` of each item, in order, with a progress bar if stderr is a terminal.

    Function, items and results must be picklable. Each process takes `chunk` items at a time. With one worker, or
    at most `chunk` items, this process computes them itself. After Ctrl-C, or when the caller stops iterating, the
    processes finish the chunks that they were given, and get no others. An error of `function` ends the work and is
    raised. UserError if a process is killed.
    """
    bar = {"total": len(items), "desc": title, "unit": unit, "disable": None}
    if workers == 1 or len(items) <= chunk:  # starting processes would take longer
        yield from tqdm(map(function, items), **bar)
        return
    executor = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        yield from tqdm(executor.map(function, items, chunksize=chunk), **bar)
    except BrokenProcessPool as error:
        problem = "a process was killed, perhaps because memory ran out; try fewer --workers"
        raise UserError(f"{title}: {problem}") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the main process ends. If that is killed, its workers would otherwise wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def ignore_signals_in_worker(_index: int) -> None:
    """Called in a loader's worker: signals reach all processes, and the main one decides when its workers end."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def available_shared_memory() -> int | None:
    """The number of bytes that processes can share in memory; None if unknown (not Linux).

    The minimum of the kernel's MemAvailable, what the container's limit leaves, and the free space in /dev/shm.
    """
    try:
        meminfo = Path("/proc/meminfo").read_text()
        limits = [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
        limits.append(shutil.disk_usage("/dev/shm").free)
    except (OSError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, KeyError):  # there is no limit ("max"), or no version 2 of cgroups
        free = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limits.append(free + int(used["active_file"]) + int(used["inactive_file"]))  # the kernel frees cached files
    return max(0, min(limits))
