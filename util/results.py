"""The folder that test.py fills: images, a page to look through them, and what they were made with.

RESULTS_DIR/{source}_2_{target}_vis.jpg    the results, named as published
RESULTS_DIR/index.html, strips/            the page and its rows of thumbnails
RESULTS_DIR/test_run.json                  options, weights and versions

Writing happens in threads, so that it overlaps with the network; every file is written whole or not at all.
"""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from dominate import tags
from dominate.util import raw
from PIL import Image

from util.draw_pose import draw_skeleton
from util.errors import UserError
from util.files import atomic_write
from util.html import new_page
from util.image import contact_sheet, save_image

COLUMNS = ("source photo", "source skeleton", "target skeleton", "generated", "target photo")
STRIP_HEIGHT = 128  # pixels
ROWS_A_PAGE = 100
RUN_FILE = "test_run.json"


class Results:
    """Writes results as they come. Use as a context: leaving it waits for the last file."""

    def __init__(self, folder: Path, run: dict[str, Any], carry_on: bool, threads: int = 2) -> None:
        """`run`: what the results are made with. With `carry_on` the finished ones of an earlier run with the same
        `run['made_with']` count; UserError if there are none of those, or the folder cannot be written."""
        self.folder, self._threads = folder, threads
        self._waiting: deque[Future] = deque()
        record = folder / RUN_FILE
        if carry_on:
            self._check_same(record, run)
        else:
            atomic_write(record, lambda file: file.write(json.dumps(run, indent=1).encode()))
        self._started = record.stat().st_mtime_ns

    @staticmethod
    def _check_same(record: Path, run: dict[str, Any]) -> None:
        try:
            before = dict(json.loads(record.read_text())["made_with"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"--continue_test: {record} cannot be read ({error}); leave the flag out") from error
        if changed := [name for name in run["made_with"] if before.get(name) != run["made_with"][name]]:
            raise UserError(
                f"--continue_test: {record.parent} was drawn with other {', '.join(changed)}; leave the flag out to "
                "draw all again, or give another --results_dir"
            )

    def has(self, name: str) -> bool:
        """Whether result `name` was finished by this run."""
        return all(path.exists() and path.stat().st_mtime_ns >= self._started for path in self._paths(name))

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.folder / name, self.folder / "strips" / f"{Path(name).stem}.jpg"

    def __enter__(self) -> "Results":
        self._pool = ThreadPoolExecutor(self._threads)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._collect(0)

    def add(
        self, name: str, generated: Image.Image, photos: Sequence[Image.Image], keypoints: Sequence[np.ndarray]
    ) -> None:
        """Write one result; `photos` and `keypoints` (18,2) of source and target are at the network's resolution.

        Waits while many are unfinished, so memory stays small. Raises UserError for one that could not be written.
        """
        self._waiting.append(self._pool.submit(self._write, name, generated, photos, keypoints))
        self._collect(16 * self._threads)

    def _collect(self, most: int) -> None:
        while len(self._waiting) > most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def _write(
        self, name: str, generated: Image.Image, photos: Sequence[Image.Image], keypoints: Sequence[np.ndarray]
    ) -> None:
        result, strip = self._paths(name)
        size = (round(STRIP_HEIGHT * generated.width / generated.height), STRIP_HEIGHT)
        source, target, drawn = (_thumbnail(picture, size) for picture in (*photos, generated))
        scale = np.array([size[1] / photos[0].height, size[0] / photos[0].width])
        skeletons = [draw_skeleton(joints * scale, size[::-1]) for joints in keypoints]
        save_image(contact_sheet([[source, *skeletons, drawn, target]]), strip)
        save_image(generated, result)  # last: a result has its strip

    def write_page(self, title: str, names: Iterable[tuple[str, str, str]]) -> Path:
        """index.html for (source, target, result) names; those whose result is not there are left out."""
        page = self.folder / "index.html"
        rows = [row for row in names if self.has(row[2])]
        atomic_write(page, lambda file: file.write(_page(title, rows).encode()))
        return page


def _thumbnail(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """At `size` (W, H). Whole pixels are averaged first: half the time, and these threads take it from the network."""
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)


def _page(title: str, rows: Sequence[tuple[str, str, str]]) -> str:
    document = new_page(title)
    with document.head:
        tags.style(STYLE)
    with document:
        tags.h1(title)
        with tags.div(cls="bar"):
            tags.input_(id="filter", type="search", placeholder="part of a name", aria_label="filter by name")
            tags.button("‹", id="back", aria_label="previous page")
            tags.span(id="place")
            tags.button("›", id="on", aria_label="next page")
        with tags.div(cls="columns sticky"):
            for column in COLUMNS:
                tags.span(column)
        tags.div(id="rows")
        # names are data here and text nodes there, so none of them is ever read as HTML
        data = json.dumps({"rows": rows, "size": ROWS_A_PAGE}, ensure_ascii=False).replace("<", "\\u003c")
        tags.script(raw(data), type="application/json", id="data")
        tags.script(raw(SCRIPT))
    return document.render()


STYLE = """
body { max-width: 40rem; }
.bar { display: flex; gap: 0.5rem; align-items: center; margin-bottom: 0.5rem; }
.bar input { flex: 1; min-width: 4rem; font-size: 1rem; padding: 0.3rem; }
.bar button { font-size: 1rem; padding: 0.2rem 0.8rem; }
.sticky { position: sticky; top: 0; background: white; padding: 0.3rem 0; }
#rows img { width: 100%; display: block; background: #eee; }
#rows figcaption { overflow-wrap: anywhere; }
"""

SCRIPT = """
const { rows, size } = JSON.parse(document.getElementById("data").textContent);
const field = document.getElementById("filter"), list = document.getElementById("rows");
let page = 0;
function show() {
  const wanted = field.value.toLowerCase();
  const found = rows.filter(([source, target]) => (source + " " + target).toLowerCase().includes(wanted));
  const pages = Math.max(1, Math.ceil(found.length / size));
  page = Math.min(Math.max(page, 0), pages - 1);
  document.getElementById("place").textContent = `page ${page + 1} of ${pages}, ${found.length} results`;
  document.getElementById("back").disabled = page === 0;
  document.getElementById("on").disabled = page === pages - 1;
  list.replaceChildren(...found.slice(page * size, (page + 1) * size).map(([source, target, result]) => {
    const figure = document.createElement("figure"), link = document.createElement("a");
    const image = document.createElement("img"), caption = document.createElement("figcaption");
    image.src = "strips/" + encodeURIComponent(result.replace(/\\.[^.]*$/, ".jpg"));
    image.loading = "lazy";
    image.alt = `${source} in the pose of ${target}`;
    link.href = encodeURIComponent(result);
    link.append(image);
    caption.textContent = `${source} \\u2192 ${target}`;
    figure.append(link, caption);
    return figure;
  }));
}
field.oninput = () => { page = 0; show(); };
document.getElementById("back").onclick = () => { page--; show(); scrollTo(0, 0); };
document.getElementById("on").onclick = () => { page++; show(); scrollTo(0, 0); };
show();
"""
