"""User errors: one line that says what to do, and exit status 2; never a traceback."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from util.console import guarded_console
from util.home import ensure_home


class UserError(Exception):
    """An error that the user can correct. The message says what is wrong, where, and what to do."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class where the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# What torch's RuntimeErrors about worker processes and memory say -> what the user can do
FEWER_FILES = "the limit of open files is reached: raise it (ulimit -n 65536), or give fewer --nThreads"
MORE_SPACE = "/dev/shm is full: give it more space (docker run --shm-size=2g), or use --nThreads 0"
SMALLER_STEPS = "the GPU's memory is full: give a smaller batch, --precision bf16, or in training --accumulate 2 (4, 8)"
MORE_MEMORY = "a worker process was killed, perhaps because memory or /dev/shm was full: give fewer --nThreads, or 0"
REMEDIES = {
    "ancdata": FEWER_FILES, "Too many open files": FEWER_FILES,
    "allocate shared memory": MORE_SPACE, "is killed by signal: Bus error": MORE_SPACE,
    "is killed by signal": MORE_MEMORY, "exited unexpectedly": MORE_MEMORY,
    "CUDA out of memory": SMALLER_STEPS, "CUDA error: out of memory": SMALLER_STEPS,
    "Failed to find C compiler": "--compile needs a C compiler on a GPU: install gcc, or give --no-compile",
}  # fmt: skip


def torch_remedy(error: RuntimeError) -> str | None:
    """One line for an error of torch whose message has a text in REMEDIES; None for all other errors."""
    return next((f"{remedy} ({first_line(error)})" for text, remedy in REMEDIES.items() if text in str(error)), None)


def summarize(problems: Sequence[str], shown: int = 10) -> str:
    """The first `shown` problems, one to an indented line, and how many more there are."""
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more ({len(problems)} in all)")
    return "\n".join(lines)


def run_main(main: Callable[[], Any], needs_stdout: bool = True) -> None:
    """Run the `main` of a command and exit with the status that it returns; None is 0.

    A UserError, or an OSError (a file that cannot be read or written), prints its message on stderr and exits with 2.
    Ctrl-C exits with 130, as shells expect. Where stdout goes away (see util/console.py), a command that `needs_stdout`
    ends with such an error; others continue without it.
    """
    ensure_home()
    if hasattr(sys.stdout, "reconfigure"):  # characters that the console lacks must not raise; stderr escapes them
        sys.stdout.reconfigure(errors="replace")

    def main_and_its_output() -> Any:
        status = main()
        sys.stdout.flush()  # a status that refers to what was printed must not outlive it
        return status

    with guarded_console(needs_stdout):
        status = _status(main_and_its_output) or _status(sys.stdout.flush)  # --help does not return
    if status is not None:
        sys.exit(status)


def _status(step: Callable[[], Any]) -> Any:
    """What `step` returns, or the exit status of its error."""
    try:
        return step()
    except SystemExit as end:  # argparse: --help, flags that are wrong
        return end.code
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        is_link_loop = str(error).startswith("Symlink loop")  # pathlib's, before Python 3.13
        if message := str(error) if is_link_loop else torch_remedy(error):
            print(f"error: {message}", file=sys.stderr)
            return 2
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
