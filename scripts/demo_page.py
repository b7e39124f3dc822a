"""The page of scripts/demo.sh: scores of its networks beside two baselines, some results, and where to see more.

python scripts/demo_page.py --results results/demo --metrics results/demo/metrics.jsonl --training checkpoints/demo
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pandas as pd
from dominate import document, tags
from PIL import Image

from metrics.report import read_records
from util.checkpoint import STATE_FILE, load_state
from util.errors import UserError, run_main
from util.html import add_column_titles, add_table, new_page, write_page
from util.image import contact_sheet, decode_photo, save_image
from util.results import STRIP_COLUMNS

MOST_EXAMPLES = 12  # evenly spread over all results
METHODS = {
    "pretrained": "pretrained network",
    "own": "network trained here",
    "copy_source": "source image, unchanged",
    "mean_image": "mean of all training images",
}
METRICS = {"psnr": "PSNR ↑", "ssim_256": "SSIM ↑", "mask_ssim": "mask SSIM ↑", "l1": "L1 ↓"}


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--results", type=Path, required=True, metavar="DIR",
        help="folder of pretrained/ and, after the training, own/, written by test.py; the page goes here")  # fmt: skip
    add("--metrics", type=Path, required=True, metavar="JSONL", help="the evaluations to show")
    add("--training", type=Path, required=True, metavar="DIR", help="folder of the training run")
    args = parser.parse_args()
    scores = read_scores(args.metrics)
    networks = [name for name in ("pretrained", "own") if name in scores.index]
    examples = write_examples(args.results, networks)
    verdict, links = "", {f"{name}/index.html": f"all results of the {METHODS[name]}" for name in networks}
    if "own" in networks:
        verdict = judge(scores, load_state(args.training / STATE_FILE)["progress"]["total"])
        links[os.path.relpath(args.training / "web/index.html", args.results)] = "its training, with all losses"
    cells = scores.apply(lambda column: column.map(("{:.2f}" if column.name == "psnr" else "{:.3f}").format))
    rows = [("", *METRICS.values()), *((METHODS[name], *row) for name, *row in cells.itertuples())]
    write_page(args.results / "demo.html", make_page(rows, verdict, examples, networks, links))
    print("\n" + "\n".join(f"{row[0]:<28}" + "".join(f"{cell:>13}" for cell in row[1:]) for row in rows))
    print(f"{verdict}\npage: {args.results / 'demo.html'}")


def read_scores(metrics: Path) -> pd.DataFrame:
    """A row for each of METHODS that was measured, a column for each of METRICS."""
    cells = read_records(metrics).drop_duplicates("name", keep="last").set_index("name")
    numbers = cells.reindex(columns=list(METRICS)).apply(lambda column: column.astype(str).str.split().str[0])
    scores = numbers.astype(float)
    return scores.reindex([name for name in METHODS if name in scores.index])


def judge(scores: pd.DataFrame, pairs: int) -> str:
    """Whether the network that was trained here on `pairs` beats both baselines, in a sentence or two."""
    baselines = scores.loc[["copy_source", "mean_image"]].max()
    judged = {metric: METRICS[metric].removesuffix(" ↑") for metric in ("psnr", "ssim_256", "mask_ssim")}
    lost = [title for metric, title in judged.items() if not scores.loc["own", metric] > baselines[metric]]
    seen = f"The network trained here has seen {pairs:,} pairs"
    if not lost:
        return f"{seen} and beats both baselines in {', '.join(judged.values())}."
    return (
        f"{seen}. These are too few: it does not yet beat both baselines in {', '.join(lost)}. Run the demo again to "
        "train it for longer."
    )


def write_examples(results: Path, networks: Sequence[str]) -> list[str]:
    """Save some results as results/examples/*.jpg, a column for each network's image; returns their addresses."""
    strips = sorted((results / networks[0] / "strips").glob("*.jpg")) if networks else []
    if not strips:
        raise UserError(f"{results}: no results of a network in it; run test.py and the evaluation first")
    shown = strips[:: -(-len(strips) // MOST_EXAMPLES)]
    for strip in shown:
        columns = [_columns(results / name / "strips" / strip.name) for name in networks]
        first = columns[0]
        generated = [each["generated"] for each in columns]
        sheet = contact_sheet([[first["source image"], first["target pose"], *generated, first["target image"]]])
        save_image(sheet, results / "examples" / strip.name)
    return [f"examples/{strip.name}" for strip in shown]


def _columns(strip: Path) -> dict[str, Image.Image]:
    """The images of a strip of test.py's page, by the titles of their columns."""
    image = decode_photo(strip)
    width = image.width // len(STRIP_COLUMNS)
    return {title: image.crop((i * width, 0, (i + 1) * width, image.height)) for i, title in enumerate(STRIP_COLUMNS)}


def make_page(
    scores: Sequence[Sequence[str]], verdict: str, examples: Sequence[str], networks: Sequence[str],
    links: dict[str, str],
) -> document:  # fmt: skip
    """`scores`: rows of a table, the header first. `examples`, `links`: addresses relative to the page."""
    page = new_page("DPTN: demo", narrow=True)
    with page:
        tags.h1("DPTN: rendered people in new poses")
        tags.p(
            "A network gets the source image and the target pose, and generates the same person in that pose. The "
            "target image shows what would be right. No network here has seen these people in training."
        )
        add_column_titles(["source image", "target pose", *(METHODS[n] for n in networks), "target image"], sticky=True)
        for example in examples:
            tags.img(src=example, cls="strip", alt=Path(example).stem)
        tags.h2("Scores")
        add_table(scores)
        tags.p(
            "Means over all test pairs. Arrows point to the better side. A network has learned something if it beats "
            "both baselines, which need no network: the source image as it is, and the mean of all training images, a "
            "gray ghost. Mask SSIM counts the person without the background."
        )
        if verdict:
            tags.p(verdict)
        with tags.ul():
            for address, text in links.items():
                tags.li(tags.a(text, href=address))
    return page


if __name__ == "__main__":
    run_main(main)
