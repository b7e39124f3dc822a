"""What applies to all tests: the marker `quick`, their order, memory, and fixtures that run programs.

The marker `quick` is set here: on the tests of the packages QUICK that are not marked `slow` and run no command
(PROGRAMS). Imports of torch are within the functions, because the process that only starts others (`pytest -n`) loads
this file too.
"""

import ctypes
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests run on the CPU
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no further processes that compile, in as much memory again
# Compiled code goes below the tests' folder, not to the user's cache; each process of pytest-xdist has its own folder.
os.environ["XDG_CACHE_HOME"] = os.path.join(
    os.path.dirname(__file__), "../.pytest_cache", os.environ.get("PYTEST_XDIST_WORKER", "")
)
# models/cpu_compile.py sets the same folder, but too late where a test file has imported torch's compiler before
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "dptn_compiled")

REPOSITORY = Path(__file__).parent.parent
PROGRAMS = {"run", "call", "command", "torchrun"}  # fixtures that run a whole command
QUICK, NOT_QUICK = {"data", "models", "options"}, {"synthetic", "test_ablations.py"}  # folders and files
# These files come first: the first one starts processes beside the tests, which are small at their beginning; the
# second one takes longest, so that no process waits for it at the end.
FIRST = ["test_distributed.py", "test_resume.py"]
MUCH_MEMORY = 200e6  # bytes


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_short = not item.get_closest_marker("slow") and PROGRAMS.isdisjoint(item.fixturenames)
        if is_short and _may_be_quick(item.path):
            item.add_marker("quick")
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def pytest_collection_finish() -> None:
    gc.freeze()  # what has been imported stays, so that searching the rest for cycles is fast


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick`, import no other tests: that takes as long as running the quick ones."""
    ignored = config.option.markexpr == "quick" and collection_path.is_file() and not _may_be_quick(collection_path)
    return True if ignored else None


def _may_be_quick(file: Path) -> bool:
    folders = set(file.relative_to(Path(__file__).parent).parts)
    return not QUICK.isdisjoint(folders) and NOT_QUICK.isdisjoint(folders)


@pytest.fixture(autouse=True, scope="session")
def give_memory_back() -> Iterator[None]:
    """Programs keep freed memory for speed; this process runs hundreds of them, and gives it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("util.device.keep_freed_memory", lambda: None)
        yield


class Memory:
    """The memory of this process."""

    def __init__(self) -> None:
        self.after_free = self.resident_bytes()

    @staticmethod
    def resident_bytes() -> int:
        statm = Path("/proc/self/statm")
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0

    def free(self) -> None:
        """Delete networks, which are part of reference cycles, and give back what glibc keeps of their memory."""
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)
        self.after_free = self.resident_bytes()


@pytest.fixture(autouse=True, scope="session")
def memory() -> Memory:
    return Memory()


@pytest.fixture(autouse=True)
def free_memory(memory: Memory) -> Iterator[None]:
    yield
    now = memory.resident_bytes()
    memory.after_free = min(memory.after_free, now)
    if now - memory.after_free > MUCH_MEMORY:
        memory.free()


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A training that a signal stopped keeps its handlers, because its process ends; this one goes on."""
    from util.worker_processes import STOP_SIGNALS

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    from tests.helpers import make_market

    return make_market(tmp_path / "market")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run a script or module ("-m NAME") of the repository in its own process, in an empty folder, on one thread."""

    def run(script: str, *flags: object, **environment: str) -> subprocess.CompletedProcess:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), **environment}
        target = script.split() if script.startswith("-m ") else [str(REPOSITORY / script)]
        line = [sys.executable, *target, *map(str, flags)]
        return subprocess.run(line, cwd=work, capture_output=True, text=True, timeout=300, env=variables)

    return run


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess]:
    """call(module, flags...): like `command`, but in this process."""

    from util.errors import run_main

    def run(module: ModuleType, *flags: object) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, flags)])
        capsys.readouterr()
        status = 0
        try:
            run_main(module.main)
        except SystemExit as end:
            status = end.code
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return run


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run('train', flags...) runs train.py in this process, in an empty folder."""
    import test as test_command
    import train as train_command

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(command: str, *flags: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *map(str, flags)])
        status = {"train": train_command, "test": test_command}[command].main()
        if status is not None:
            raise SystemExit(status)

    return call
