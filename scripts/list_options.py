"""Writes docs/options.md from the argument parsers: every flag with its help and default, in groups.

python scripts/list_options.py           # write the page
python scripts/list_options.py --check   # compare only; exit status 2 if the page is stale
"""

import sys
from argparse import Action, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.transfer_options import TransferOptions
from metrics import options as metrics_options
from metrics import reid_options, statistics
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.errors import UserError, run_main
from util.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs/options.md"
TITLE = """# Options

What `--help` says, for reading. Defaults in brackets; each `--dataset_mode` has its own `--name` and
`--dataroot`, those here are fashion's. Written by `scripts/list_options.py`; a test compares.
"""


def describe(action: Action, default: object) -> str:
    """A flag as an item of a Markdown list."""
    flag = ", ".join(f"`{name}`" for name in action.option_strings)
    # Python before 3.11 adds the suffix to the help of --x / --no-x
    text = (action.help or "").replace("%%", "%").removesuffix(" (default: %(default)s)")
    if isinstance(action, BooleanOptionalAction):
        return f"- {flag}: {text}" + ("" if default is None else f" [{'on' if default else 'off'}]")
    if action.nargs == 0:
        return f"- {flag}: {text}"
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else None
    value = action.metavar or choices or action.dest.upper()
    return f"- {flag} {value}: {text}" + ("" if default is None or "default" in text else f" [{default}]")


def section(command: str, parser: ArgumentParser) -> str:
    """A command's flags under headings."""
    lines = [f"## {command}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            lines += [f"### {group.title}", "", *(describe(a, parser.get_default(a.dest)) for a in actions), ""]
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    check = parser.parse_args().check
    train = TrainOptions().parser(["--model=DPTNTA"])  # DPTN's flags and one more, here with DPTN's defaults
    train.set_defaults(**vars(TrainOptions().parser([]).parse_args([])))
    parsers = {
        "train.py": train,
        "test.py": TestOptions().parser([]),
        "scripts/transfer.py": TransferOptions().parser([]),
        "python -m metrics.metrics": metrics_options.make_parser(),
        "python -m metrics.reid": reid_options.make_parser(),
        "python -m metrics.statistics": statistics.make_parser(),
    }
    page = "\n".join([TITLE, *(section(*item) for item in parsers.items())])
    if not check:
        write_text(PAGE, page)
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        raise UserError(f"{PAGE} is stale; run scripts/list_options.py")


if __name__ == "__main__":
    run_main(main)
