"""Web pages: the style that they share (the studio has its own), and the pages of a training run and its results."""

import json
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import dominate
import numpy as np
import pandas as pd
from dominate import svg, tags
from dominate.util import raw

from util.files import write_text

STYLE_FILE = Path(__file__).with_name("page.css")
RESULTS_SCRIPT_FILE = Path(__file__).with_name("results_page.js")
ROWS_PER_PAGE = 100
WIDTH, HEIGHT = 300, 120  # of a chart, in its own units


def new_page(title: str, narrow: bool = False) -> dominate.document:
    """An empty page in the style of page.css, which it contains."""
    page = dominate.document(title=title)
    style = tags.style(raw(STYLE_FILE.read_text(encoding="utf-8")))
    viewport = tags.meta(name="viewport", content="width=device-width, initial-scale=1")
    page.head.add(tags.meta(charset="utf-8"), viewport, style)
    if narrow:
        page.body["class"] = "narrow"
    return page


def write_page(path: Path, page: dominate.document) -> None:
    """Write `page` atomically, in UTF-8."""
    write_text(path, page.render())


def add_column_titles(titles: Sequence[str], sticky: bool = False) -> None:
    """Add the titles over the columns of a sheet or strip to the open tag."""
    with tags.div(cls="columns sticky" if sticky else "columns"):
        for title in titles:
            tags.span(title)


def add_table(rows: Sequence[Sequence[str]]) -> None:
    """Add a table to the open tag; the first of `rows` is its header."""
    with tags.div(cls="scroll"), tags.table():
        tags.tr(*map(tags.th, rows[0]))
        for row in rows[1:]:
            tags.tr(*map(tags.td, row))


def line_chart(values: pd.Series) -> svg.svg:
    """A chart of the finite `values` over their index, thinned to 500 points."""
    values = values[np.isfinite(values)]
    values = values.iloc[:: max(1, ceil(len(values) / 500))]
    chart = svg.svg(viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none")
    if len(values):
        x, y = (axis - axis.min() for axis in (values.index.to_numpy(float), values.to_numpy(float)))
        x = x / max(x.max(), 1e-12) * WIDTH
        y = HEIGHT - 4 - y / max(y.max(), 1e-12) * (HEIGHT - 8)
        points = " ".join(f"{right:.1f},{down:.1f}" for right, down in zip(x, y))
        chart.add(svg.polyline(points=points, fill="none", stroke="#1660a8", stroke_width="1.5"))
    return chart


def write_training_page(
    path: Path, name: str, losses: pd.DataFrame, visual_names: Sequence[str], sheets: Mapping[str, str]
) -> None:
    """Write the page of a training run.

    `losses`: a column for each loss, indexed by samples since the start. `visual_names`: titles of a sheet's columns.
    `sheets`: titles by address (relative to the page), in the order of the page.
    """
    page = new_page(f"{name}: training")
    with page:
        tags.h1(name)
        with tags.div(cls="plots"):
            for loss, values in losses.items():
                with tags.figure():
                    line_chart(values)
                    tags.figcaption(f"{loss}: {values.iloc[-1]:.4g}, lowest {values.min():.4g}")
        for address, title in sheets.items():
            tags.h2(title)
            with tags.figure(cls="sheet"):
                add_column_titles(visual_names)
                tags.img(src=address, alt=title, loading="lazy")
    write_page(path, page)


def write_results_page(
    path: Path, title: str, column_titles: Sequence[str], rows: Sequence[tuple[str, str, str]]
) -> None:
    """Write the page of test results: a filter, and a strip of thumbnails (strips/STEM.jpg) for each row.

    rows: names of (source, target, result), the result's relative to the page.
    """
    page = new_page(title, narrow=True)
    with page:
        tags.h1(title)
        with tags.div(cls="bar"):
            tags.input_(id="filter", type="search", placeholder="part of a name", aria_label="filter by name")
            tags.button("‹", id="previous", aria_label="previous page")
            tags.span(id="position")
            tags.button("›", id="next", aria_label="next page")
        add_column_titles(column_titles, sticky=True)
        tags.div(id="rows")
        # A "<" in a name must not end the script element; the script itself puts names into text nodes only.
        data = json.dumps({"rows": rows, "rowsPerPage": ROWS_PER_PAGE}, ensure_ascii=False).replace("<", "\\u003c")
        tags.script(raw(data), type="application/json", id="data")
        tags.script(raw(RESULTS_SCRIPT_FILE.read_text(encoding="utf-8")))
    write_page(path, page)
