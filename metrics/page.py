"""The page of an evaluation: table, a histogram for each metric, and the worst, median and best pairs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dominate import svg, tags
from PIL import Image

from metrics.evaluation import METRICS, Evaluation
from metrics.pairing import Sample
from metrics.report import remarks, result_rows, title
from util.files import atomic_write
from util.html import HEIGHT, WIDTH, new_page
from util.image import contact_sheet, decode_photo, save_image

BINS = 40
PAIRS = 3  # worst, median and best ones each
STYLE = """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
.scroll { overflow-x: auto; }
.metric { display: grid; grid-template-columns: minmax(12rem, 1fr) 3fr; gap: 1.5rem; align-items: start; }
.metric svg { width: 100%; background: #f6f6f6; }
.ranks { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem; }
.ranks h3 { font-size: 0.9rem; margin: 0 0 0.3rem; }
.ranks figure { margin: 0 0 0.7rem; } .ranks img { width: 100%; }
.ranks figcaption { overflow-wrap: anywhere; font-size: 0.7rem; }
@media (max-width: 50rem) { .metric { grid-template-columns: 1fr; } }
"""


def histogram(values: np.ndarray) -> svg.svg:
    """Bars over the range of finite values."""
    low, high = values.min(), values.max()
    slack = 1e-9 * max(abs(low), abs(high), 1e-9)  # values that differ by rounding alone cannot fill 40 bins
    counts, _ = np.histogram(values, bins=BINS, range=(low - slack, high + slack))
    picture = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none")
    for number, count in enumerate(counts):
        height = count / counts.max() * (HEIGHT - 4)
        bar = {"x": f"{number * WIDTH / BINS:.1f}", "y": f"{HEIGHT - height:.1f}", "height": f"{height:.1f}"}
        picture.add(svg.rect(**bar, width=f"{WIDTH / BINS - 0.5:.1f}", fill="#1660a8"))
    return picture


def ranked(values: np.ndarray, higher_is_better: bool) -> dict[str, np.ndarray]:
    """Which samples are the worst (from the very worst on), the ones around the median, and the best."""
    measured = np.flatnonzero(~np.isnan(values))
    worst_first = measured[np.argsort(values[measured] * (1 if higher_is_better else -1), kind="stable")]
    middle = max(0, (len(worst_first) - PAIRS) // 2)
    best = worst_first[::-1][:PAIRS]
    return {"worst": worst_first[:PAIRS], "median": worst_first[middle : middle + PAIRS], "best": best}


def write_evaluation_page(
    folder: Path, name: str, facts: Sequence[str], evaluation: Evaluation, samples: Sequence[Sample],
    source_dir: Path, target_dir: Path,
) -> None:  # fmt: skip
    """Write folder/index.html and the pictures that it shows below folder/images. `facts`: lines under the title."""
    page = new_page(f"{name}: evaluation")
    with page.head:
        tags.style(STYLE)
    drawn: set[int] = set()
    with page:
        tags.h1(f"{name}: evaluation")
        for fact in facts:
            tags.div(fact)
        header, *rows = result_rows(evaluation.results)
        with tags.div(cls="scroll"), tags.table():
            tags.tr(*map(tags.th, header))
            for row in rows:
                tags.tr(*map(tags.td, row))
        for remark in remarks(evaluation.results):
            tags.p(remark)
        tags.p("Pictures: source, target, generated.")
        for (protocol, metric), values in evaluation.values.items():
            tags.h2(f"{title(metric)} ({protocol})")
            with tags.div(cls="metric"):
                finite = values[np.isfinite(values)]
                with tags.figure():
                    if len(finite):
                        histogram(finite)
                        tags.figcaption(f"{finite.min():.4g} to {finite.max():.4g}, {len(finite):,} images")
                    else:
                        tags.figcaption("no finite value")
                with tags.div(cls="ranks"):
                    for rank, numbers in ranked(values, METRICS[metric].higher_is_better).items():
                        with tags.div():
                            tags.h3(rank)
                            for number in numbers:
                                _figure(samples[number], number, float(values[number]))
                            drawn.update(numbers.tolist())
    for number in drawn:
        save_image(_sheet(samples[number], source_dir, target_dir), folder / _file(number))
    atomic_write(folder / "index.html", lambda file: file.write(page.render().encode()))


def _figure(sample: Sample, number: int, value: float) -> None:
    with tags.figure():
        tags.img(src=_file(number), alt=sample.generated.name, loading="lazy")
        tags.figcaption(f"{value:.4g}: {sample.source or '?'} → {sample.target}")


def _file(number: int) -> str:
    return f"images/{number:06d}.png"


def _sheet(sample: Sample, source_dir: Path, target_dir: Path) -> Image.Image:
    """Source (gray where it is not known), target, generated."""
    target, generated = decode_photo(target_dir / sample.target), decode_photo(sample.generated)
    known = sample.source and (source_dir / sample.source).is_file()
    source = decode_photo(source_dir / sample.source) if known else Image.new("RGB", target.size, "gray")
    return contact_sheet([[source, target, generated]])
