"""Writes docs/options.md from the argument parsers: every flag with its help and default, in groups.

python scripts/list_options.py           # write the page
python scripts/list_options.py --check   # only compare; exit status 2 if the page is stale
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.transfer_options import TransferOptions
from metrics.options import make_parser
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.errors import UserError, run_main
from util.files import atomic_write

PAGE = Path(__file__).resolve().parent.parent / "docs/options.md"
TITLE = """# Options

What `--help` says, for reading. Defaults in brackets; `--dataset_mode market` has another `--name` and `--dataroot`.
Written by `scripts/list_options.py`; a test compares.
"""


def describe(action: argparse.Action, default: object) -> str:
    """A flag as an item of a Markdown list."""
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    if value is None and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
        value = action.dest.upper()
    text = (action.help or "").removesuffix(" (default: %(default)s)")  # Python before 3.11 adds it to --x / --no-x
    if isinstance(action, argparse.BooleanOptionalAction):
        default = "on" if default else "off"
    elif default is None or action.nargs == 0 or "default" in text:
        default = None
    return f"- {names}{f' {value}' if value else ''}: {text}{'' if default is None else f' [{default}]'}"


def section(command: str, parser: argparse.ArgumentParser) -> str:
    """A command's flags under headings."""
    lines = [f"## {command}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            lines += [f"### {group.title}", "", *(describe(a, parser.get_default(a.dest)) for a in actions), ""]
    return "\n".join(lines)


def options_page() -> str:
    """The content of docs/options.md."""
    parsers = {
        "train.py": TrainOptions().parser([]),
        "test.py": TestOptions().parser([]),
        "scripts/transfer.py": TransferOptions().parser([]),
        "python -m metrics.metrics": make_parser(),
    }
    return "\n".join([TITLE, *(section(*item) for item in parsers.items())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="only compare; write nothing")
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != options_page():
            raise UserError(f"{PAGE} is stale; run scripts/list_options.py")
    else:
        atomic_write(PAGE, lambda file: file.write(options_page().encode()))


if __name__ == "__main__":
    run_main(main)
