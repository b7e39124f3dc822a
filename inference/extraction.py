"""Extraction of keypoints from a folder of photos: photos searched in parallel, rows cached for a stopped run."""

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from data.keypoints import NUM_JOINTS
from inference.estimators import ESTIMATORS, load_estimator
from util.device import select_device
from util.draw_pose import draw_skeleton
from util.errors import UserError, summarize
from util.files import atomic_write, sha256
from util.image import contact_sheet, decode_photo, photo_names
from util.parallel import map_in_processes

CHUNK = 4  # photos that a process takes at a time, because one takes seconds on a CPU
SHEET = (8, 12)  # rows, columns of `skeleton_sheet`; of more photos, as many are chosen at equal distances
CELL = (256, 176)  # height, width of one photo on the sheet


load_once = lru_cache(maxsize=1)(load_estimator)  # one per process; a forked process inherits its parent's


class ExtractedRow(NamedTuple):
    """What was found in one photo."""

    people: int
    keypoints: np.ndarray  # (18,2) of (y, x) of the largest person, all NaN if there is nobody


class EstimatorChoice(NamedTuple):
    """The arguments of `load_estimator`."""

    name: str
    weights: str
    device: torch.device


def choose_estimator(name: str, weights: str | None, gpu_ids: str | None) -> EstimatorChoice:
    """Load the estimator, so that missing weights or packages are one early error. Raises UserError."""
    device = select_device(gpu_ids) if ESTIMATORS[name].uses_gpu else torch.device("cpu")
    choice = EstimatorChoice(name, weights or ESTIMATORS[name].default_weights, device)
    load_once(*choice)
    return choice


def list_photos(folder: Path) -> list[str]:
    """Names of the photos in a folder and below, sorted. UserError if there are none, or if a csv cannot hold one."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = photo_names(folder)
    if not names:
        raise UserError(f"{folder}: no photos in it (.jpg, .jpeg or .png)")
    if bad := [name for name in names if set(name) & set(':"') or name != name.strip() or not name.isprintable()]:
        problems = summarize([ascii(name) for name in bad])
        raise UserError(f"{folder}: names that a keypoints csv cannot hold; rename these photos:\n{problems}")
    return names


class RowCache:
    """The rows found so far, in a file of JSON lines that a stopped run leaves.

    The first line holds the settings that the rows depend on, each other line one photo: [name, people, keypoints].
    """

    def __init__(
        self, path: Path, folder: Path, names: Sequence[str], estimator: EstimatorChoice, overwrite: bool
    ) -> None:
        """Read the rows of a stopped run and rewrite the file with those of the photos `names`.

        Raises UserError if rows are damaged or were made with other settings; with `overwrite` they are discarded.
        """
        name, weights, _ = estimator
        content = sha256(weights) if Path(weights).is_file() else weights
        settings = {"folder": str(folder.resolve()), "estimator": name, "weights": content}
        self.path = path
        try:
            rows = self._read(settings) if path.exists() else {}
        except UserError:
            if not overwrite:
                raise
            rows = {}
        self.rows = {name: rows[name] for name in names if name in rows}
        lines = [_json_line(settings), *(_row_line(name, row) for name, row in self.rows.items())]
        atomic_write(path, lambda file: file.writelines(lines))

    def _read(self, settings: Mapping[str, str]) -> dict[str, ExtractedRow]:
        """The rows in the file, without a last line that a killed run did not finish."""
        advice = "--overwrite discards it; another OUT.csv leaves it unchanged"
        try:
            first, *lines = (json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1])
            changed = [f"{key} {first[key]}, now {new}" for key, new in settings.items() if first[key] != new]
            rows = {
                name: ExtractedRow(people, np.array(keypoints, np.float32).reshape(NUM_JOINTS, 2))
                for name, people, keypoints in lines
            }
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.path}: not the rows of a stopped run ({error}); {advice}") from error
        if changed:
            raise UserError(f"{self.path}: the stopped run had other settings ({'; '.join(changed)}); {advice}")
        return rows

    def add(self, name: str, row: ExtractedRow) -> None:
        """The row is in the file when this returns."""
        self.rows[name] = row
        with self.path.open("ab") as file:
            file.write(_row_line(name, row))


def _json_line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _row_line(name: str, row: ExtractedRow) -> bytes:
    return _json_line([name, row.people, row.keypoints.tolist()])


def extract_rows(folder: Path, names: Sequence[str], estimator: EstimatorChoice, workers: int, cache: RowCache) -> None:
    """Search the photos and add their rows to `cache`. UserError at the end for photos that cannot be decoded."""
    problems = []
    find = partial(_find_row, folder=folder, estimator=estimator)
    for name, found in zip(names, map_in_processes(find, names, workers, "photos", CHUNK)):
        if isinstance(found, str):
            problems.append(found)
        else:
            cache.add(name, found)
    if problems:
        advice = "repair or remove them and run the same command again, which keeps what was found in the others"
        raise UserError(f"{len(problems)} photos cannot be used; {advice}:\n{summarize(problems)}")


def _find_row(name: str, folder: Path, estimator: EstimatorChoice) -> ExtractedRow | str:
    """The largest person of a photo, or why the photo cannot be decoded."""
    try:
        photo = decode_photo(folder / name)
    except UserError as error:
        return str(error)
    if multiprocessing.parent_process():
        torch.set_num_threads(1)  # each of the other cores has a process of its own
    people = load_once(*estimator).find_people(photo)
    return ExtractedRow(len(people), people[0] if people else np.full((NUM_JOINTS, 2), np.nan, np.float32))


def round_down(keypoints: np.ndarray) -> np.ndarray:
    """Hundredths of a pixel, for short numbers in the csv; rounded down, because rounding up could leave the photo."""
    return np.floor(keypoints.astype(np.float64) * 100) / 100


def skeleton_sheet(folder: Path, rows: Mapping[str, ExtractedRow]) -> Image.Image:
    """Skeletons over photos, of all rows or of as many as the sheet holds."""
    names, places = list(rows), SHEET[0] * SHEET[1]
    if len(names) > places:
        names = [names[round(number)] for number in np.linspace(0, len(names) - 1, places)]
    cells = []
    for name in names:
        photo = decode_photo(folder / name)
        image = ImageOps.contain(photo, CELL[::-1])
        scaled = rows[name].keypoints * (image.height / photo.height, image.width / photo.width)
        cells.append(ImageOps.pad(draw_skeleton(scaled, image.size[::-1], image), CELL[::-1], color="white"))
    return contact_sheet([cells[start : start + SHEET[1]] for start in range(0, len(cells), SHEET[1])])
