"""Errors of the user: one line and an exit status."""

import contextlib

import pytest
import torch

from util.errors import UserError, run_main, summarize


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("a.csv: row 3"), 2, "error: a.csv: row 3\n"),
        (FileNotFoundError(2, "No such file", "b"), 2, "error: [Errno 2] No such file: 'b'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_run_main_turns_an_error_into_a_line_and_a_status(error, status, message, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_main(main)
    assert (end.value.code, capsys.readouterr().err) == (status, message)


def test_run_main_explains_a_link_to_itself(tmp_path, capsys):
    """Python 3.13 resolves it to itself instead."""
    (tmp_path / "loop").symlink_to("loop")
    with contextlib.suppress(SystemExit):
        run_main(lambda: (tmp_path / "loop").resolve() and None)
    assert capsys.readouterr().err in ("", f"error: Symlink loop from '{tmp_path / 'loop'}'\n")


def test_run_main_says_what_to_do_where_the_gpu_is_full(capsys):
    def main():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")

    with pytest.raises(SystemExit) as end:
        run_main(main)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("error: the GPU's memory is full: give a smaller batch")
    assert message.endswith("(CUDA out of memory. Tried to allocate 2.00 GiB.)\n")


def test_run_main_raises_errors_of_the_program():
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 // 0)


def test_summarize_counts_what_it_leaves_out():
    assert summarize(["a", "b"]) == "  a\n  b"
    assert summarize(["a", "b", "c"], shown=1) == "  a\n  ... and 2 more (3 in all)"
