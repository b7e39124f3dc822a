"""Batches of worker processes, and their errors."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch.utils.data import Dataset

from tests.helpers import REPOSITORY
from util.errors import UserError
from util.loader import BatchLoader


class Samples(Dataset):
    """Rows of one large tensor, as those of a cache are. Row 2 calls `act` in its worker."""

    def __init__(self, act=lambda: None) -> None:
        self.rows, self.act = torch.arange(30_000, dtype=torch.float32).view(3, 10_000), act

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        if index == 2:
            self.act()
        return {"row": self.rows[index], "keep": torch.tensor([index > 1]), "name": str(index), "score": index / 2}


def load(act: Callable[[], object]) -> list[dict]:
    """All samples through one worker. Without an explicit end, an iterator that a traceback holds waits for ten seconds
    when it is freed."""
    loader = BatchLoader(Samples(act), 1, 1, batch_size=1, persistent_workers=True)
    try:
        return list(loader)
    finally:
        loader.end_workers()


def fail(message: str) -> Callable[[], None]:
    def act() -> None:
        raise RuntimeError(message)

    return act


def bad_photo() -> None:
    raise UserError("a.jpg: photo cannot be decoded")


@pytest.fixture
def small_shared_memory(monkeypatch):
    monkeypatch.setattr("util.loader.available_shared_memory", lambda: 64 * 2**20)


def test_batches_through_pipes_equal_those_through_shared_memory(small_shared_memory, capsys):
    """Docker's 64 MB: a batch of 12 MB goes through pipes, one of 1 MB does not."""
    usual, pipes = (list(BatchLoader(Samples(), size, 2, batch_size=2)) for size in (10**6, 12 * 10**6))
    for one, two in zip(usual, pipes, strict=True):
        assert one.keys() == two.keys()
        assert (one["name"], one["score"].tolist()) == (two["name"], two["score"].tolist())
        assert torch.equal(one["row"], two["row"])
        assert torch.equal(one["keep"], two["keep"])
        assert two["keep"].dtype == torch.bool
    assert usual[0]["row"].is_shared()
    assert not pipes[0]["row"].is_shared()
    assert capsys.readouterr().err.count("2 workers need 144 MB of shared memory, 67 MB are free: batches go") == 1


def test_loader_without_workers_needs_no_shared_memory(small_shared_memory, capsys):
    assert len(list(BatchLoader(Samples(), 10**9, 0, batch_size=1))) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            fail("unable to allocate shared memory(shm) for file </torch_1>: No space left"),
            "^/dev/shm is full: give it",
        ),
        (fail("DataLoader worker (pid 9) is killed by signal: Bus error. It is"), "^/dev/shm is full: give it"),
        (fail("DataLoader worker (pid 9) is killed by signal: Killed."), "^a worker process was killed, perhaps"),
        (fail("received 0 items of ancdata"), "^the limit of open files is reached: raise it"),
        (bad_photo, "^a.jpg: photo cannot be decoded$"),
    ],
    ids=["no space", "bus error", "killed", "files", "user error"],
)
def test_error_of_a_worker_is_one_line(act, message):
    with pytest.raises(UserError, match=message) as caught:
        load(act)
    assert "\n" not in str(caught.value)


def test_killed_worker_ends_a_command_with_one_line():
    """torch's handler raises its error wherever the main process is."""
    program = """
import os
import signal
from tests.util.test_loader import Samples
from util.errors import run_main
from util.loader import BatchLoader
samples = Samples(lambda: os.kill(os.getpid(), signal.SIGKILL))
run_main(lambda: list(BatchLoader(samples, 1, 1, batch_size=1)) and None)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a worker process was killed, perhaps because memory or /dev/shm was full")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_broken_connection_to_a_worker_is_a_killed_worker(error, monkeypatch):
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._next_data", broken)
    with pytest.raises(UserError, match="a worker process was killed"):
        list(BatchLoader(Samples(), 1, 1, batch_size=1))


def test_error_of_the_program_is_raised_as_it_is():
    with pytest.raises(ZeroDivisionError):
        load(lambda: 1 // 0)


def test_workers_that_cannot_be_started_are_a_user_error(monkeypatch):
    def start(_self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with pytest.raises(UserError, match="no worker processes could be started .*: use --nThreads 0"):
        list(BatchLoader(Samples(), 1, 1, batch_size=1))


def test_a_full_disk_under_the_console_is_no_error_of_the_workers(monkeypatch):
    """Python flushes stdout before it starts a process."""

    def start(_self: object) -> None:
        raise OSError(28, "No space left on device", "log.txt")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with pytest.raises(OSError, match=r"No space left on device: 'log.txt'"):
        list(BatchLoader(Samples(), 1, 1, batch_size=1))


def test_workers_ignore_the_signals_that_stop_a_run():
    def send_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)

    assert len(load(send_signals)) == 3
