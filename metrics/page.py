"""The web page of an evaluation: table, a histogram for each metric, and the worst, median and best pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from dominate import svg, tags
from PIL import Image

from metrics.evaluation import Measurements
from metrics.report import ALL_METRICS, remarks, results_table, title
from metrics.stream import PairDataset
from util.html import HEIGHT, WIDTH, add_table, new_page, write_page
from util.image import contact_sheet, decode_photo, save_image

BINS = 40
PAIRS = 3  # in each rank: worst, median, best
STYLE = """
.metric { display: grid; grid-template-columns: minmax(12rem, 1fr) 3fr; gap: 1.5rem; align-items: start; }
.ranks { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem; }
.ranks h3 { font-size: 0.9rem; margin: 0 0 0.3rem; }
.ranks figure { margin: 0 0 0.7rem; } .ranks img { width: 100%; } .ranks figcaption { font-size: 0.7rem; }
@media (max-width: 50rem) { .metric { grid-template-columns: 1fr; } }
"""


def write_evaluation_page(
    folder: Path, name: str, facts: Sequence[str], results: Measurements, values: pd.DataFrame, pairs: PairDataset,
    source_dir: Path,
) -> None:  # fmt: skip
    """Write folder/index.html and the images that it shows below folder/images.

    `facts`: lines under the title. `results`: measurements by protocol and metric. `values`: a row for each measured
    sample, by its index in `pairs.samples`, and a column for each (protocol, metric). `source_dir`: the folder of the
    source photos; a gray image stands for one that is not there.
    """
    page = new_page(f"{name}: evaluation")
    with page.head:
        tags.style(STYLE)
    with page:
        tags.h1(f"{name}: evaluation")
        for fact in facts:
            tags.div(fact)
        table = results_table(results)
        add_table([("metric", *table), *table.itertuples(name=None)])
        for remark in remarks(results):
            tags.p(remark)
        tags.p("Images: source, target, generated.")
        for (protocol, metric), column in values.items():
            tags.h2(f"{title(metric)} ({protocol})")
            with tags.div(cls="metric"):
                _add_histogram(column)
                ranks = tags.div(cls="ranks")
            for rank, ranked in rank_pairs(column, ALL_METRICS[metric].higher_is_better).items():
                with ranks, tags.div():
                    tags.h3(rank)
                    for index, value in ranked.items():
                        _add_pair(folder, index, value, pairs, source_dir)
    write_page(folder / "index.html", page)


def rank_pairs(values: pd.Series, higher_is_better: bool) -> dict[str, pd.Series]:
    """The worst values (the very worst first), those around the median, and the best, by index of their samples."""
    worst_first = values.dropna().sort_values(ascending=higher_is_better, kind="stable")
    middle = max(0, (len(worst_first) - PAIRS) // 2)
    best = worst_first[::-1][:PAIRS]
    return {"worst": worst_first[:PAIRS], "median": worst_first[middle : middle + PAIRS], "best": best}


def _add_pair(folder: Path, index: int, value: float, pairs: PairDataset, source_dir: Path) -> None:
    """Save a pair's three images in one file and add them to the open tag."""
    source, target, generated = pairs.samples[index]
    images = [decode_photo(pairs.target_dir / target), decode_photo(generated)]
    known = source and (source_dir / source).is_file()
    first = decode_photo(source_dir / source) if known else Image.new("RGB", images[0].size, "gray")
    address = f"images/{index:06d}.png"
    sheet = [first, *(image.resize(first.size) for image in images)]  # other projects' images have other sizes
    save_image(contact_sheet([sheet]), folder / address)
    with tags.figure():
        tags.img(src=address, alt=generated.name, loading="lazy")
        tags.figcaption(f"{value:.4g}: {source or '?'} → {target}")


def _add_histogram(values: pd.Series) -> None:
    finite = values[np.isfinite(values)].to_numpy()
    with tags.figure():
        if len(finite):
            histogram(finite)
            tags.figcaption(f"{finite.min():.4g} to {finite.max():.4g}, {len(finite):,} images")
        else:
            tags.figcaption("no finite value")


def histogram(values: np.ndarray) -> svg.svg:
    """Bars over the range of finite values."""
    low, high = values.min(), values.max()
    slack = 1e-9 * max(abs(low), abs(high), 1e-9)  # np.histogram cannot make 40 bins of a smaller range
    counts, _ = np.histogram(values, bins=BINS, range=(low - slack, high + slack))
    chart = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none")
    for number, count in enumerate(counts):
        height = count / counts.max() * (HEIGHT - 4)
        bar = {"x": f"{number * WIDTH / BINS:.1f}", "y": f"{HEIGHT - height:.1f}", "height": f"{height:.1f}"}
        chart.add(svg.rect(**bar, width=f"{WIDTH / BINS - 0.5:.1f}", fill="#1660a8"))
    return chart
