"""The page at the end of scripts/demo.sh: scores beside two baselines, some results, and where to see more.

python scripts/demo_page.py --results results/demo --metrics results/demo/metrics.jsonl --training checkpoints/demo
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dominate import document, tags

from metrics.report import comparison_table, format_table, read_records, table_rows
from util.errors import UserError, run_main
from util.html import add_column_titles, add_table, new_page, write_page
from util.results import STRIP_COLUMNS

MAX_STRIPS = 12  # evenly spread over all results


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--results", type=Path, required=True, metavar="DIR", help="results of test.py; the page is written here")
    add("--metrics", type=Path, required=True, metavar="JSONL", help="evaluations to show side by side")
    add("--training", type=Path, required=True, metavar="DIR", help="folder of the training run")
    args = parser.parse_args()
    scores = comparison_table(read_records(args.metrics).set_index("name"))
    strips = sorted((args.results / "strips").glob("*.jpg"))
    if not strips:
        raise UserError(f"{args.results}/strips: empty; run test.py first")
    shown = strips[:: -(-len(strips) // MAX_STRIPS)]
    training_page = os.path.relpath(args.training / "web/index.html", args.results)
    write_page(args.results / "demo.html", make_page(table_rows(scores), shown, training_page))
    print(f"\n{format_table(scores)}\n\npage: {args.results / 'demo.html'}")


def make_page(scores: Sequence[Sequence[str]], strips: Sequence[Path], training_page: str) -> document:
    """`scores`: rows of a table, the header first. `training_page`: address relative to the page."""
    page = new_page("DPTN: demo", narrow=True)
    with page:
        tags.h1("DPTN: rendered people in new poses")
        tags.p(
            "The network never saw these people in training. The table compares its scores with two baselines that "
            "need no network: the source photo itself (copy_source) and the mean of all training photos (mean_image). "
            "An arrow upwards means that more is better."
        )
        add_table(scores)
        with tags.p():
            tags.a("All results", href="index.html")
            tags.span(" · ")
            tags.a("The training run", href=training_page)
        add_column_titles(STRIP_COLUMNS, sticky=True)
        for strip in strips:
            tags.img(src=f"strips/{strip.name}", cls="strip", alt=strip.stem)
    return page


if __name__ == "__main__":
    run_main(main)
