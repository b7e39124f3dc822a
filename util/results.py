"""The results folder of test.py. Every file is written atomically.

{source}_2_{target}_vis.jpg    the generated images, named as in the published code; .png with --image_format png
index.html, strips/            a page to browse them, and its strips of thumbnails
test_run.json                  the options, weights and versions that the images were generated with, the number of
                               pairs, and whether all of them are finished
"""

import json
import os
from argparse import Namespace
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from util.draw_pose import draw_skeleton
from util.errors import UserError
from util.files import sha256, write_text
from util.image import contact_sheet, save_image, to_pil
from util.packages import can_write_pages
from util.reproducibility import git_revision, versions
from util.worker_processes import available_cores

STRIP_COLUMNS = ("source image", "source pose", "target pose", "generated", "target image")
STRIP_HEIGHT = 128  # pixels
WRITING_THREADS = max(2, min(8, available_cores() // 2))  # each writes some 100 images a second
PENDING_PER_THREAD = 16
RUN_FILE = "test_run.json"
PAGE_FILE = "index.html"


def describe_run(opt: Namespace, weights: Path, photo_dir: Path, csv_sha256: Mapping[str, str]) -> dict[str, Any]:
    """The content of test_run.json: in "made_with" what the images depend on, then what helps to repeat the run.

    `csv_sha256`: hashes of the data set's csv files by name. Photos are in "made_with" by their folder, not by content.
    """
    made_with = {"weights": sha256(weights), "photos": str(photo_dir.resolve()), "csv files": dict(csv_sha256)}
    # all other flags that shape the network are checked by the strict loading of its weights
    names = ("model", "dataset_mode", "precision", "image_format", "nhead", "ptm_values")
    made_with |= {name: getattr(opt, name) for name in names}
    code = {"git": git_revision(), "versions": versions()}
    return {"made_with": made_with, "weights_file": str(weights), "options": vars(opt), **code}


class Results:
    """Threads write the images while the network generates the next ones. A context manager: its end waits for them."""

    def __init__(
        self, folder: Path, names: Mapping[tuple[str, str], str], run: Mapping[str, Any], resume: bool
    ) -> None:
        """Start a run, or with `resume` keep the results of an earlier run with the same `run["made_with"]`.

        names: the result's file name for each (source, target) pair, in the page's order.
        run: `describe_run` of this run.

        Raises UserError where there is no run to resume, or the folder cannot be written.
        """
        self.folder, self.names = folder, names
        self._pending: deque[Future] = deque()
        record = folder / RUN_FILE
        if resume:
            _check_same_run(record, run)
        else:
            write_text(record, json.dumps({**run, "pairs": len(names), "finished": False}, indent=1))
        self._record, self._started = record, record.stat().st_mtime_ns

    def has(self, name: str) -> bool:
        """Whether this run has finished the result `name`. Files older than the run belong to an earlier one."""
        return all(path.exists() and path.stat().st_mtime_ns >= self._started for path in self._paths(name))

    def missing_pairs(self) -> list[Any]:
        """The pairs, as in `names`, whose result this run has not finished."""
        return [pair for pair, name in self.names.items() if not self.has(name)]

    def __enter__(self) -> "Results":
        self._pool = ThreadPoolExecutor(WRITING_THREADS)
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            self._wait_until_pending(0)
            self._finish()

    def _finish(self) -> None:
        """Write into test_run.json that all pairs have a result of this run; its time stays that of the start."""
        run = json.loads(self._record.read_text())
        finished_before = run["pairs"] if run.get("finished") else 0  # a resumed run may be of fewer pairs
        run |= {"pairs": max(finished_before, len(self.names)), "finished": True}
        write_text(self._record, json.dumps(run, indent=1))
        os.utime(self._record, ns=(self._started, self._started))

    def add(self, batch: Mapping[str, Any], images: Tensor) -> None:
        """Write the generated `images`, uint8 (B,3,H,W) on the CPU, of a loader's `batch`.

        Waits while many images are unwritten, which bounds the memory. Raises UserError if one could not be written.
        """
        for index, image in enumerate(images):
            sample = {key: values[index] for key, values in batch.items()}
            self._pending.append(self._pool.submit(self._write, sample, image))
            self._wait_until_pending(PENDING_PER_THREAD * WRITING_THREADS)

    def _wait_until_pending(self, limit: int) -> None:
        """Wait until at most `limit` images are unwritten, and raise the error of any that failed."""
        while len(self._pending) > limit or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()

    def _write(self, sample: Mapping[str, Any], image: Tensor) -> None:
        path, strip = self._paths(self.names[sample["source_name"], sample["target_name"]])
        generated = to_pil(image)
        save_image(_make_strip(sample, generated), strip)  # first, so that an image always has its strip
        save_image(generated, path)

    def _paths(self, name: str) -> tuple[Path, Path]:
        """The files of a result: the image and its strip."""
        return self.folder / name, self.folder / "strips" / f"{Path(name).stem}.jpg"

    def write_page(self, title: str) -> Path | None:
        """Write index.html with all finished results; None, after a warning, where dominate is not installed."""
        if not can_write_pages():
            return None
        from util.html import write_results_page

        rows = [(*pair, name) for pair, name in self.names.items() if self.has(name)]
        write_results_page(self.folder / PAGE_FILE, title, STRIP_COLUMNS, rows)
        return self.folder / PAGE_FILE


def _check_same_run(record: Path, run: Mapping[str, Any]) -> None:
    try:
        written = dict(json.loads(record.read_text()))
        earlier = written.get("options", {}) | written["made_with"]  # made_with had fewer names in earlier versions
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--continue_test: {record} cannot be read ({error}); leave the flag out") from error
    if changed := [name for name, value in run["made_with"].items() if earlier.get(name) != value]:
        advice = "leave the flag out to generate all images again, or give another --results_dir"
        raise UserError(f"--continue_test: {record.parent} was generated with other {', '.join(changed)}; {advice}")


def _make_strip(sample: Mapping[str, Any], generated: Image.Image) -> Image.Image:
    """STRIP_COLUMNS of one result, side by side, in the shape of the generated image.

    sample: images uint8 (3,H,W) and keypoints (18,2) at the network's resolution.
    """
    height, width = STRIP_HEIGHT, round(STRIP_HEIGHT * generated.width / generated.height)
    images = to_pil(sample["source_image"]), generated, to_pil(sample["target_image"])
    # reducing_gap averages whole pixels first, in half the time: these threads compete with the network
    images = [image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.0) for image in images]
    scale = np.divide((height, width), sample["source_image"].shape[-2:])
    poses = sample["source_keypoints"], sample["target_keypoints"]
    skeletons = [draw_skeleton(keypoints.numpy() * scale, (height, width)) for keypoints in poses]
    return contact_sheet([[images[0], *skeletons, *images[1:]]])
