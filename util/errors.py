"""Errors that are the user's to mend: one clear line and exit status 2, never a traceback."""

import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do."""


def summarize(problems: Sequence[str], shown: int = 10) -> str:
    """The first `shown` problems, one an indented line, and how many more there are."""
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more ({len(problems)} in all)")
    return "\n".join(lines)


def run_main(main: Callable[[], int | None]) -> None:
    """Run a command's `main`; a UserError, or a file that cannot be read or written, becomes one message on stderr
    and exit status 2. A Ctrl-C ends it with 130, as shells expect."""
    if hasattr(sys.stdout, "reconfigure"):  # stderr never fails: it escapes what its encoding lacks
        sys.stdout.reconfigure(errors="replace")
    try:
        status = main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    if status is not None:
        sys.exit(status)
