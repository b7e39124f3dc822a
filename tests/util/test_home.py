"""Users without a home folder or a name."""

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY
from util.home import ensure_home

# Runs commands as a user whom the system does not know. Each is a fork of one process that has imported the libraries,
# under the same conditions; its output goes to the files NUMBER.out and NUMBER.err of a folder.
NAMELESS = """
import os, pwd, runpy, sys

def unknown(_uid):
    raise KeyError("uid not found")

pwd.getpwuid = unknown
import pandas, torch, torchvision

folder, *commands = sys.argv[1:]
for number, command in enumerate(commands):
    child = os.fork()
    if not child:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        *module, name = command.split()
        sys.argv = [name, "--help"]
        run = runpy.run_module if module else runpy.run_path
        run(name, run_name="__main__", **({"alter_sys": True} if module else {}))
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
COMMANDS = [
    *("train.py", "test.py", "data/generate_fashion_datasets.py"),
    *(f"scripts/{name}.py" for name in ("check_dataset", "make_pairs", "prepare_market", "extract_poses", "transfer")),
    *(f"-m {name}" for name in ("data.synthetic", "metrics.metrics", "metrics.statistics", "metrics.reid")),
    *(f"scripts/{name}.py" for name in ("convert_poses", "download", "ablation")),
]


@pytest.fixture
def nameless(monkeypatch, tmp_path):
    """This process without HOME and without an entry in passwd; temporary files go below tmp_path."""

    def unknown(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that what ensure_home sets is undone
        monkeypatch.delenv(name)


def test_ensure_home_leaves_a_home_and_a_name_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("USER", "someone")
    ensure_home()
    assert (os.environ["HOME"], os.environ["USER"]) == ("/somewhere", "someone")


def test_ensure_home_makes_a_private_folder(nameless, tmp_path):
    ensure_home()
    assert Path.home() == tmp_path / f"dptn_{os.getuid()}"
    assert Path.home().stat().st_mode & 0o777 == 0o700
    assert getpass.getuser() == f"uid{os.getuid()}"


def test_ensure_home_does_not_use_a_folder_of_another_user(nameless, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "dptn_12345").mkdir()  # of the user who runs the tests
    ensure_home()
    assert Path.home().parent == tmp_path
    assert Path.home().name != "dptn_12345"


def test_ensure_home_works_where_nothing_can_be_written(nameless, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    ensure_home()
    assert str(Path.home()) == "/nonexistent"


@pytest.fixture(scope="module")
def helped(tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """Status, stdout and stderr of `COMMAND --help` as that user, by command."""
    folder = tmp_path_factory.mktemp("help")
    environment = {key: os.environ[key] for key in ("PATH", "CUDA_VISIBLE_DEVICES") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS, str(folder), *COMMANDS], cwd=REPOSITORY, capture_output=True, text=True,
        timeout=300, env={**environment, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    outputs = ([(folder / f"{i}.{name}").read_text() for name in ("out", "err")] for i in range(len(COMMANDS)))
    statuses = map(int, done.stdout.split())
    return {command: (status, *out) for command, status, out in zip(COMMANDS, statuses, outputs, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_nameless_user_without_home_gets_help(helped, command):
    status, out, err = helped[command]
    assert status == 0, err
    assert out.startswith("usage: ")
