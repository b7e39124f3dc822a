"""Web pages: charts, tables, and names that must not be read as HTML."""

import json
import re

import numpy as np
import pandas as pd
from dominate import tags

from util.html import ROWS_PER_PAGE, add_table, line_chart, new_page, write_results_page, write_training_page


def points_of(values: pd.Series) -> list[str]:
    return re.search(r'points="([^"]+)"', line_chart(values).render())[1].split()


def test_line_chart_scales_and_leaves_out_values_that_are_not_finite():
    values = pd.Series([1.0, np.nan, np.inf, 3.0], index=[0, 5, 7, 10])
    assert points_of(values) == ["0.0,116.0", "300.0,4.0"]


def test_line_chart_is_thinned():
    assert len(points_of(pd.Series(np.arange(5000.0)))) == 500


def test_line_chart_without_values_has_no_line():
    assert "polyline" not in line_chart(pd.Series([], dtype=float)).render()


def test_add_table_escapes_cells():
    with new_page("t") as page:
        add_table([["metric", "<b>"], ["l1 ↓", "0.5"]])
    assert "<th>&lt;b&gt;</th>" in page.render()
    assert "<td>0.5</td>" in page.render()


def test_new_page_contains_the_style():
    with new_page("a < b", narrow=True) as page:
        tags.p("text")
    html = page.render()
    assert "<title>a &lt; b</title>" in html
    assert "body.narrow { max-width: 40rem; }" in html
    assert '<body class="narrow">' in html


def test_write_training_page_shows_curves_and_sheets_and_escapes_names(tmp_path):
    losses = pd.DataFrame({"a<b": [2.0, 1.5, 1.75]}, index=[1, 2, 3])
    sheets = {"images/2.jpg": "epoch 2", "images/1.jpg": "epoch 1"}
    write_training_page(tmp_path / "index.html", "<script>x</script>", losses, ["<i>"], sheets)
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "a&lt;b: 1.75, lowest 1.5" in page
    assert "<span>&lt;i&gt;</span>" in page
    assert re.findall(r'<img[^>]*src="([^"]+)"', page) == list(sheets)


def test_write_training_page_before_the_first_losses(tmp_path):
    write_training_page(tmp_path / "index.html", "a", pd.DataFrame([]), ["source"], {})
    assert "<h1>a</h1>" in (tmp_path / "index.html").read_text()


def test_write_results_page_keeps_names_as_data(tmp_path):
    rows = [("</script><img src=x onerror=alert(1)>.jpg", "人物 é.jpg", "x_2_y_vis.jpg")]
    write_results_page(tmp_path / "index.html", "<b>&run", ["source"], rows)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "<b>&run" not in html
    data = json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', html, re.DOTALL)[1])
    assert data == {"rows": [list(row) for row in rows], "rowsPerPage": ROWS_PER_PAGE}
