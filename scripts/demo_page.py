"""The page at the end of scripts/demo.sh: scores beside two baselines, some results, and where to see more.

python scripts/demo_page.py --results results/demo --metrics results/demo/metrics.jsonl --training checkpoints/demo
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
from dominate import tags
from dominate.util import raw

from metrics.report import comparison_table, format_table, html_table, read_records
from util.errors import UserError, run_main
from util.files import atomic_write
from util.html import new_page
from util.results import COLUMNS, STYLE

SHOWN = 12  # results, evenly spread over all
TABLE = """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.scroll { overflow-x: auto; } .strip { width: 100%; display: block; }
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--results", type=Path, required=True, metavar="DIR", help="what test.py drew; the page goes here"
    )
    parser.add_argument("--metrics", type=Path, required=True, metavar="JSONL", help="evaluations to show side by side")
    parser.add_argument("--training", type=Path, required=True, metavar="DIR", help="folder of the training run")
    args = parser.parse_args()
    table = comparison_table(read_records(args.metrics).set_index("name"))
    strips = sorted((args.results / "strips").glob("*.jpg"))
    if not strips:
        raise UserError(f"{args.results}/strips: empty; run test.py first")
    page = args.results / "demo.html"
    atomic_write(page, lambda file: file.write(render(table, strips[:: -(-len(strips) // SHOWN)], args).encode()))
    print(f"\n{format_table(table)}\n\npage: {page}")


def render(table: pd.DataFrame, strips: list[Path], args: argparse.Namespace) -> str:
    page = new_page("DPTN: demo")
    with page.head:
        tags.style(STYLE + TABLE)
    with page:
        tags.h1("DPTN: drawn people in new poses")
        tags.p(
            "People whom the network never saw in training, and their scores beside two ways to do without a network: "
            "handing back the source photo (copy_source), and the mean of all training photos (mean_image). "
            "Up arrows: more is better."
        )
        with tags.div(cls="scroll"):
            raw(html_table(table))
        with tags.p():
            tags.a("All results", href="index.html")
            tags.span(" · ")
            tags.a("How the training went", href=os.path.relpath(args.training / "web/index.html", args.results))
        with tags.div(cls="columns sticky"):
            for column in COLUMNS:
                tags.span(column)
        for strip in strips:
            tags.img(src=f"strips/{strip.name}", cls="strip", alt=strip.stem)
    return page.render()


if __name__ == "__main__":
    run_main(main)
