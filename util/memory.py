"""How much memory a process may still take, and keeping what it has."""

import contextlib
import ctypes
import os
import shutil
import sys
from pathlib import Path


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


def keep_freed_memory() -> None:
    """From now on the memory of a freed tensor waits for the next one, in huge pages, instead of going back to Linux.

    Getting fresh pages for each result takes a third of a compiled step on a CPU. To be called before the first tensor
    is made. Does nothing where the C library is not glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it makes its first tensor
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    library.mallopt(trim_threshold, -1)  # never give back
    library.mallopt(mmap_max, 0)  # large blocks too come from what is kept
    library.mallopt(arena_max, 1)  # one store for all threads: backward passes run in one of their own
