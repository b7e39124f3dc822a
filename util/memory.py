"""How much memory a process may still take."""

import contextlib
import shutil
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
