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
    with guarded_console(needs_stdout):
        status = _status(main) or _status(sys.stdout.flush)
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
