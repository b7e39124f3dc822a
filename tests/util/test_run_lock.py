"""Two starts of one run: which is refused, and which takes over from a killed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from util.errors import UserError
from util.run_lock import RunLock

HOLD = """
import os, sys, time
from pathlib import Path
from util.run_lock import RunLock
RunLock.HEARTBEAT = 0.05
RunLock(Path(sys.argv[1])).acquire()
if os.fork():
    print("locked", flush=True)
time.sleep(60)
"""
ELSEWHERE = {"host": "node7", "process": 1, "kernel": "another", "since": "2026-11-26 07:00:00 UTC", "heartbeats": 3}


@pytest.fixture
def owner(tmp_path):
    """Another process that holds the lock of tmp_path, and has a child that outlives it, as a worker may."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def short_patience(monkeypatch):
    monkeypatch.setattr(RunLock, "PATIENCE", 0.6)
    monkeypatch.setattr(RunLock, "HEARTBEAT", 0.05)


def write_record(folder: Path, **changes: object) -> None:
    (folder / "lock.json").write_text(json.dumps({**ELSEWHERE, **changes}))


def test_locked_run_is_refused_by_host_process_and_time(tmp_path, owner):
    with pytest.raises(
        UserError, match=rf"by process {owner.pid} on host \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    ):
        RunLock(tmp_path).acquire()
    assert owner.poll() is None


def test_killed_owner_does_not_block_even_if_its_workers_survive(tmp_path, owner, capsys):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with RunLock(tmp_path) as lock:
        lock.acquire()
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()
    assert "waiting" not in capsys.readouterr().out
    assert not (tmp_path / "lock.json").exists()


def test_owner_on_another_machine_is_refused_at_its_next_heartbeat(tmp_path, owner, short_patience, monkeypatch):
    """Its lock does not reach this machine, and a process with its number may run here."""
    monkeypatch.setattr("util.run_lock._kernel", lambda: "another machine")
    monkeypatch.setattr(RunLock, "_lock", lambda self: True)
    with pytest.raises(UserError, match=f"by process {owner.pid} on host"):
        RunLock(tmp_path).acquire()


def test_silent_owner_on_another_machine_is_replaced(tmp_path, short_patience, capsys):
    write_record(tmp_path, process=os.getpid())
    with RunLock(tmp_path) as lock:
        lock.acquire()
    assert "lock.json: waiting 1 s for a sign of life from process" in capsys.readouterr().out
    assert "node7" not in str(list(tmp_path.iterdir()))


def test_file_system_without_locks_relies_on_heartbeats(tmp_path, owner, short_patience, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with pytest.raises(UserError, match=f"by process {owner.pid} on host"):
        RunLock(tmp_path).acquire()


def test_overwritten_owner_learns_of_its_rival(tmp_path, short_patience):
    """Two machines that started at the same moment, on a file system whose locks do not reach both."""
    with RunLock(tmp_path) as lock:
        lock.acquire()
        lock.check()
        write_record(tmp_path)
        time.sleep(0.3)
        with pytest.raises(UserError, match="by process 1 on host node7 since 2026"):
            lock.check()
    assert json.loads((tmp_path / "lock.json").read_text()) == ELSEWHERE  # the rival's file stays


def test_acquire_removes_temporary_files_of_killed_processes(tmp_path):
    (tmp_path / "web").mkdir()
    for name in (".latest_state.pt.part", "web/.0123456789abcdef.part", "latest_state.pt"):
        (tmp_path / name).write_bytes(b"half")
    with RunLock(tmp_path) as lock:
        lock.acquire()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"web", "latest_state.pt"}


def test_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run/lock.json: could not be written"):
        RunLock(tmp_path / "run").acquire()


def test_lock_that_a_full_disk_prevents_is_a_user_error(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLock, "_beat", full)
    with pytest.raises(UserError, match="lock.json: could not be written .No space left"), RunLock(tmp_path) as lock:
        lock.acquire()
