"""The page of a training run: curves of the losses and what the network drew, newest first."""

import re
from collections.abc import Sequence
from pathlib import Path

import dominate
from dominate import svg, tags

from util.files import atomic_write

STYLE = """
body { font-family: system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 1.5rem 0 0.5rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
figure { margin: 0 0 1.5rem; } figcaption { font-size: 0.85rem; color: #555; }
.plots svg { width: 100%; background: #f6f6f6; }
.columns { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; font-size: 0.75rem; text-align: center; }
.columns span { min-width: 0; overflow-wrap: anywhere; }
.sheet { max-width: 48rem; }
.sheet img { width: 100%; display: block; }
"""
WIDTH, HEIGHT = 300, 120


def new_page(title: str) -> dominate.document:
    """An empty page in the house style."""
    page = dominate.document(title=title)
    with page.head:
        tags.meta(charset="utf-8")
        tags.meta(name="viewport", content="width=device-width, initial-scale=1")
        tags.style(STYLE)
    return page


def curve(points: list[tuple[float, float]], most: int = 500) -> svg.svg:
    """A line through (x, y) points, thinned to at most `most` of them; values that are not finite are left out."""
    points = [(x, y) for x, y in points if abs(y) < float("inf")]
    points = points[:: max(1, -(-len(points) // most))]
    picture = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none")
    if points:
        xs, ys = zip(*points)
        x_span, y_span = (max(max(v) - min(v), 1e-12) for v in (xs, ys))
        scaled = " ".join(
            f"{(x - min(xs)) / x_span * WIDTH:.1f},{HEIGHT - 4 - (y - min(ys)) / y_span * (HEIGHT - 8):.1f}"
            for x, y in points
        )
        picture.add(svg.polyline(points=scaled, fill="none", stroke="#1660a8", stroke_width="1.5"))
    return picture


def write_training_page(
    path: Path, name: str, losses: dict[str, list[tuple[float, float]]], columns: Sequence[str], sheets: list[Path]
) -> None:
    """`losses`: (samples, value) by name. `sheets`: epochE_itersN.jpg, newest first, below the folder of `path`."""
    page = new_page(f"{name}: training")
    with page:
        tags.h1(name)
        with tags.div(cls="plots"):
            for loss, points in losses.items():
                with tags.figure():
                    curve(points)
                    last = f"{points[-1][1]:.4g}, lowest {min(y for _, y in points):.4g}" if points else "none yet"
                    tags.figcaption(f"{loss}: {last}")
        for sheet in sheets:
            epoch, total = map(int, re.findall(r"\d+", sheet.stem))
            tags.h2(f"epoch {epoch}, {total:,} samples")
            with tags.figure(cls="sheet"):
                with tags.div(cls="columns"):
                    for column in columns:
                        tags.span(column)
                tags.img(src=sheet.relative_to(path.parent).as_posix(), alt=sheet.stem, loading="lazy")
    atomic_write(path, lambda file: file.write(page.render().encode()))
