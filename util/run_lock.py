"""One process trains a run at a time, even if a cluster starts it twice."""

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from util.errors import UserError
from util.files import remove_temporary_files

LOCK_FILE = "lock.json"


class RunLock:
    """A file in the run folder that its owner locks, and in which it counts heartbeats.

    The end of this context removes the file, if `acquire` was called.

    The system's lock ends with its process, however that ends, and holds between all processes of one kernel, also in
    containers. A shared file system may not pass it on to other machines, where process ids mean nothing. So if the
    file tells of an owner under another kernel, or cannot be locked, its heartbeats are watched for PATIENCE seconds:
    if there is none, the owner was killed. No clocks of two machines are compared.

    Two machines that start at the same moment on such a file system both write their records; the one whose record
    is overwritten finds that out at its next heartbeat, and `check` raises.
    """

    HEARTBEAT = 5.0  # seconds
    PATIENCE = 30.0  # seconds: an owner may be late when a long call keeps Python busy

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.path = run_dir, run_dir / LOCK_FILE
        self._file: int | None = None
        self._record = {
            "host": platform.node(), "process": os.getpid(), "kernel": _kernel(),
            "since": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }  # fmt: skip
        self._rival: dict[str, Any] | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> "RunLock":
        return self

    def acquire(self) -> None:
        """Take the lock, and remove temporary files of killed owners. UserError if another process has it."""
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            locked = self._open()
            owner = self._read()
            if owner and not (locked and owner.get("kernel") == _kernel()):
                self._close()
                self._watch(owner)
                self._open()
            self._beat(0)
        except OSError as error:
            raise UserError(f"{self.path}: could not be written ({error.strerror})") from error
        remove_temporary_files(self.run_dir)
        self._thread.start()

    def note(self) -> str:
        """The end of a message: who trains this run now, or was killed while it did; empty where nobody did."""
        owner = _parse(self.path.read_bytes()) if self.path.exists() else {}
        return f" (not ended: {_describe(owner)})" if owner else ""

    def check(self) -> None:
        """UserError if another process has taken the lock all the same."""
        if self._rival:
            self._refuse(self._rival)

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        self._released.set()
        if self._thread.is_alive():  # `acquire` may have failed before it started
            self._thread.join()
        with contextlib.suppress(OSError):
            if not self._rival:
                self.path.unlink()
        self._close()

    def _open(self) -> bool:
        """Open and lock the file; returns False where the file system has no locks."""
        while True:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            locked = self._lock()
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), os.stat(self.path)):
                    return locked
            self._close()  # its owner has just removed it

    def _lock(self) -> bool:
        """Unlike flock's, this lock is not inherited by the loader's workers, which may outlive a killed owner.

        It ends when this process closes any descriptor of the file, so the owner must not open it again.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = self._read()
            self._close()
            self._refuse(owner)
        except OSError:
            return False
        return True

    def _close(self) -> None:
        os.close(self._file)
        self._file = None

    def _read(self) -> dict[str, Any]:
        return _parse(os.pread(self._file, 4096, 0))

    def _watch(self, owner: dict[str, Any]) -> None:
        """Return if there is no heartbeat of `owner` for PATIENCE seconds; UserError at its first one."""
        wait = f"waiting {self.PATIENCE:.0f} s for a sign of life from {_describe(owner)}, which did not end this run"
        print(f"{self.path}: {wait}", flush=True)
        end = time.monotonic() + self.PATIENCE
        while time.monotonic() < end:
            time.sleep(self.PATIENCE / 30)
            with contextlib.suppress(FileNotFoundError):  # opened anew, or NFS would show an old content
                now = _parse(self.path.read_bytes())
                if now and now != owner:
                    self._refuse(now)

    def _refuse(self, owner: dict[str, Any]) -> None:
        advice = "Wait for its end, stop it, or give another --name"
        raise UserError(f"{self.run_dir}: this run is being trained by {_describe(owner)}. {advice}")

    def _keep_beating(self) -> None:
        beats = 0
        while not self._rival and not self._released.wait(self.HEARTBEAT):
            beats += 1
            with contextlib.suppress(OSError):  # a heartbeat may fail, for example where the disk is full
                owner = self._read()
                if owner and {**owner, "heartbeats": 0} != {**self._record, "heartbeats": 0}:
                    self._rival = owner
                else:
                    self._beat(beats)

    def _beat(self, number: int) -> None:
        content = json.dumps({**self._record, "heartbeats": number}).encode()
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)  # so that other machines see it


def _parse(content: bytes) -> dict[str, Any]:
    """The owner's record; empty where there is no owner, or where it is just being written."""
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process, which has just started"
    return f"process {owner.get('process')} on host {owner.get('host')} since {owner.get('since')}"


def _kernel() -> str:
    """Identifies the running kernel, which containers share and which host names do not tell; else the host's name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()
