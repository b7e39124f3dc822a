"""The steps of scripts/extract_poses.py: find the most prominent person in each photo, and cache what was found.

Rows are cached in a file during the search, so that a stopped run resumes.
"""

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from data.keypoints import NUM_JOINTS
from inference.estimators import load_estimator
from inference.people import describe_choice, first_pose
from inference.photos import fits_in_csv
from util.draw_pose import draw_skeleton
from util.errors import UserError, summarize
from util.files import append_text, write_text
from util.image import contact_sheet, decode_photo, photo_names
from util.worker_processes import map_in_processes

CHUNK = 4  # photos that a process takes at a time: few, because one takes seconds on a CPU
SHEET = (8, 12)  # rows, columns of `skeleton_sheet`; if there are more photos, evenly spaced ones are shown
CELL = (256, 176)  # height, width of one photo on the sheet

load_once = lru_cache(maxsize=1)(load_estimator)  # one per process; a forked process inherits its parent's


class ExtractedRow(NamedTuple):
    """What was found in one photo."""

    num_people: int
    keypoints: np.ndarray  # (18,2) of the most prominent person, (y, x) in photo pixels; all NaN if there is nobody
    choice: str = ""  # who was taken and why, if there are several people


def find_photos(folder: Path) -> list[str]:
    """Names of the photos in a folder and below, sorted. UserError if there are none, or if a csv cannot hold one."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = photo_names(folder)
    if not names:
        raise UserError(f"{folder}: no photos in it")
    if bad := [name for name in names if not fits_in_csv(name)]:
        problems = summarize([ascii(name) for name in bad])
        raise UserError(f"{folder}: names that a keypoints csv cannot hold; rename these photos:\n{problems}")
    return names


class RowCache:
    """The rows found so far, in a file of JSON lines that a stopped run leaves.

    The first line holds the settings that the rows depend on, each other line one photo:
    [name, people, keypoints, choice].
    """

    def __init__(self, path: Path, settings: Mapping[str, str], names: Sequence[str], overwrite: bool) -> None:
        """Keep the rows that a stopped run found in the photos `names`.

        Raises UserError if rows are damaged or were made with other settings; with `overwrite` they are discarded.
        """
        self.path, rows = path, {}
        try:
            if path.exists():
                rows = self._read(settings)
        except UserError:
            if not overwrite:
                raise
        self.rows = {name: rows[name] for name in names if name in rows}
        lines = [_json_line(settings), *(_json_line([name, *row]) for name, row in self.rows.items())]
        write_text(path, "".join(lines))

    def _read(self, settings: Mapping[str, str]) -> dict[str, ExtractedRow]:
        """The rows in the file, without a last line that a killed run did not finish."""
        advice = "--overwrite discards it; another OUT.csv leaves it unchanged"
        try:
            first, *lines = (json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1])
            old = {"decoding": "not recorded"} | first  # older versions turned no photo upright
            changed = [f"{key} {old[key]}, now {new}" for key, new in settings.items() if old[key] != new]
            rows = {
                name: ExtractedRow(int(people), np.array(keypoints, np.float32).reshape(NUM_JOINTS, 2), str(choice))
                for name, people, keypoints, choice in lines
            }
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{self.path}: not the rows of a stopped run ({error}); {advice}") from error
        if changed:
            raise UserError(f"{self.path}: the stopped run had other settings ({'; '.join(changed)}); {advice}")
        return rows

    def add(self, name: str, row: ExtractedRow) -> None:
        """Add a row, and append it to the file."""
        self.rows[name] = row
        append_text(self.path, _json_line([name, *row]))


def _json_line(content: object) -> str:
    return json.dumps(content, default=np.ndarray.tolist) + "\n"


def extract_rows(find: Callable[[str], ExtractedRow | str], names: list[str], workers: int, cache: RowCache) -> None:
    """Search the photos and add their rows to `cache`. `find` returns a row, or why a photo cannot be decoded.

    UserError at the end for photos that cannot be decoded.
    """
    problems = []
    for found, name in zip(map_in_processes(find, names, workers, "photos", CHUNK), names):
        if isinstance(found, str):
            problems.append(found)
        else:
            cache.add(name, found)
    if problems:
        advice = "repair or remove them and run the same command again, which keeps what was found in the others"
        raise UserError(f"{len(problems)} photos cannot be used; {advice}:\n{summarize(problems)}")


def find_row(name: str, folder: Path, estimator: tuple[str, str, torch.device]) -> ExtractedRow | str:
    """The most prominent person of a photo, or why it cannot be decoded. `estimator` is what `load_once` takes."""
    try:
        photo = decode_photo(folder / name)
    except UserError as error:
        return str(error)
    if multiprocessing.parent_process():
        torch.set_num_threads(1)  # each of the other cores has a process of its own
    people = load_once(*estimator).find_people(photo)
    return ExtractedRow(len(people), first_pose(people), describe_choice(people) if len(people) > 1 else "")


def round_down(keypoints: np.ndarray) -> np.ndarray:
    """Round down to hundredths of a pixel: numbers in the csv are short, and no joint moves out of the photo."""
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
