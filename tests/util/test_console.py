"""Commands whose console goes away: a closed pipe, a full disk, closed streams."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PROGRAM = """
import sys
from pathlib import Path
from tqdm import tqdm
from util.errors import UserError, run_main

def main():
    if "short" in sys.argv:
        print("warning: 3 photos")
        return 1
    for step in tqdm(range(2000)):
        tqdm.write("a long line of a log " * 10)
    Path("saved").write_text("state")
    if "fail" in sys.argv:
        raise UserError("a.csv: row 3")
    return 7

run_main(main, needs_stdout="needs" in sys.argv)
"""


def run_in_shell(redirection: str, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run PROGRAM with its output redirected; the last line of stdout is its exit status."""
    (folder / "program.py").write_text(PROGRAM)
    line = f"{sys.executable} program.py {' '.join(words)} {redirection}; echo status ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "redirection", ["| head -1 >&2", "> /dev/full", ">&-", "2>&1 | head -1 >&2", "> /dev/full 2>&1"]
)
def test_command_continues_without_its_console(tmp_path, redirection):
    done = run_in_shell(redirection, tmp_path)
    assert done.stdout == "status 7\n"
    assert (tmp_path / "saved").exists()
    assert not any(word in done.stderr for word in ("Traceback", "Exception ignored", "lost sys.stderr"))
    if redirection in ("> /dev/full", "| head -1 >&2"):
        assert done.stderr.count("continuing without this output") == 1


def test_command_whose_last_lines_are_lost_has_no_status_of_its_own(tmp_path):
    """The text is still in Python's buffer when main returns."""
    done = run_in_shell("> /dev/full", tmp_path, "needs", "short")
    assert (done.stdout, done.stderr.count("No space left on device")) == ("status 2\n", 1)
    assert run_in_shell("> /dev/null", tmp_path, "needs", "short").stdout == "status 1\n"


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [("| head -1 >&2", "Broken pipe"), ("> /dev/full", "No space left on device"), ("2>&1 | head -1 >&2", "")],
)
def test_command_that_needs_stdout_ends_with_one_line(tmp_path, redirection, reason):
    done = run_in_shell(redirection, tmp_path, "needs")
    assert done.stdout == "status 2\n"
    assert not (tmp_path / "saved").exists()
    assert reason in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "Exception ignored", "lost sys.stderr"))


def test_full_disk_names_the_log(tmp_path):
    """The kernel refuses files over a limit: a real failed write to a real file."""
    (tmp_path / "program.py").write_text(PROGRAM)
    line = f"ulimit -f 8; {sys.executable} program.py needs > log.txt"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"error: [Errno 27] File too large: '{tmp_path / 'log.txt'}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_error_of_the_program_keeps_its_status_without_a_console(tmp_path):
    assert run_in_shell("> /dev/full 2>&1", tmp_path, "fail").stdout == "status 2\n"


@pytest.mark.parametrize("script", ["test.py", "-m metrics.metrics"])
def test_help_into_a_full_disk_is_one_line(script):
    line = f"{sys.executable} {script} --help > /dev/full"
    done = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "No space left on device" in done.stderr
