"""PATN's two csv files: which photos make a pair, and where the joints of each photo are.

Pairs: comma separated, columns `from,to`. Keypoints: colon separated, columns `name:keypoints_y:keypoints_x`, each
list a JSON list of 18 numbers in pixels of the stored photo, -1 for a missing joint (Zhu et al., CVPR 2019; OpenPose's
COCO-18 order). Files in the wild also write ': ' and put coordinates outside the photo; both are read as they are.

Every problem of a file is collected and reported with its row before any training starts.
"""

import csv
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from util.errors import UserError, summarise

NUM_JOINTS = 18


class Pair(NamedTuple):
    """Two photo names, relative to the photo folder: `source` is redrawn in the pose of `target`."""

    source: str
    target: str


def result_name(source: str, target: str, image_format: str = "jpg") -> str:
    """File name of a generated image, as published: `{source stem}_2_{target stem}_vis.jpg`.

    A folder inside a name becomes part of the file name ('a/b.jpg' -> 'a_b').
    """
    stems = (str(PurePosixPath(name).with_suffix("")).replace("/", "_") for name in (source, target))
    return f"{'_2_'.join(stems)}_vis.{image_format}"


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a csv in file order. Raises UserError listing all bad rows."""
    pairs, problems = [], []
    for row, (source, target) in _rows(path, ",", ("from", "to"), problems):
        for name in (source, target):
            if reason := _bad_name(name):
                problems.append(f"{path}, row {row}: {reason}")
        pairs.append(Pair(source, target))
    _stop_on(problems, path, pairs)
    return pairs


def read_keypoints(path: str | Path) -> dict[str, np.ndarray]:
    """Photo name -> (18, 2) float32 of (y, x) in pixels of the stored photo; a missing joint is (NaN, NaN).

    A joint is missing when either coordinate is exactly -1; other negative numbers lie outside the photo and count.
    Raises UserError listing all bad rows; a name that comes twice with different joints is one.
    """
    keypoints: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for row, (name, *lists) in _rows(path, ":", ("name", "keypoints_y", "keypoints_x"), problems):
        try:
            joints = np.stack([_parse_coordinates(text) for text in lists], axis=1)
        except ValueError as error:
            problems.append(f"{path}, row {row} ({name}): {error}")
            continue
        joints[(joints == -1).any(axis=1)] = np.nan
        if reason := _bad_name(name):
            problems.append(f"{path}, row {row}: {reason}")
        elif name in keypoints and not np.array_equal(keypoints[name], joints, equal_nan=True):
            problems.append(f"{path}, row {row}: {name} came before with other keypoints; keep one row")
        keypoints[name] = joints
    _stop_on(problems, path, keypoints)
    return keypoints


def check_pairs(
    pairs: list[Pair], keypoints: dict[str, np.ndarray], photo_dir: Path, pairs_csv: Path, keypoints_csv: Path
) -> None:
    """Raise UserError, listing them, for pairs whose photo or keypoint row does not exist."""
    if not photo_dir.is_dir():
        raise UserError(f"{photo_dir}: photo folder not found; --dataroot must hold it")
    photos = {str(p.relative_to(photo_dir).as_posix()) for p in photo_dir.rglob("*") if p.suffix}
    first_row: dict[str, int] = {}
    for row, pair in enumerate(pairs, start=2):
        for name in pair:
            first_row.setdefault(name, row)
    problems = []
    for name, row in first_row.items():
        if name not in photos:
            problems.append(f"{pairs_csv}, row {row}: no photo {photo_dir / name}")
        if name not in keypoints:
            problems.append(f"{pairs_csv}, row {row}: {name} has no row in {keypoints_csv}")
    if problems:
        raise UserError(f"the data set under {photo_dir.parent} is incomplete:\n{summarise(problems)}")


def hold_out(
    pairs: list[Pair], identity: Callable[[str], str], wanted: int, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Split off whole identities, in an order fixed by `seed`, until they are worth `wanted` pairs.

    Returns (kept, held out). No photo of a held-out identity is in a kept pair; a pair of two identities of which one
    is held out is in neither. Raises UserError where nothing would be left to train on.
    """
    people = sorted({identity(name) for pair in pairs for name in pair})
    own: dict[str, list[int]] = {person: [] for person in people}
    for number, pair in enumerate(pairs):
        if identity(pair.source) == identity(pair.target):
            own[identity(pair.source)].append(number)
    random.Random(seed).shuffle(people)
    held, numbers = set(), []
    while people and len(numbers) < wanted:
        person = people.pop()
        held.add(person)
        numbers += own[person]
    kept = [pair for pair in pairs if not held & {identity(pair.source), identity(pair.target)}]
    if len(numbers) < wanted or not kept:
        raise UserError(f"--val_pairs {wanted}: too many for {len(pairs)} training pairs of {len(own)} identities")
    return kept, [pairs[number] for number in sorted(numbers)]


def _rows(
    path: str | Path, separator: str, columns: tuple[str, ...], problems: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """(row number in the file, cells of `columns`) of each data row; rows of a wrong length go to `problems`."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            header = [cell.strip() for cell in next(reader, [])]
            missing = [column for column in columns if column not in header]
            if missing:
                raise UserError(
                    f"{path}: the first row must name the columns {separator.join(columns)}; "
                    f"{', '.join(missing)} missing in '{separator.join(header)}'"
                )
            wanted = [header.index(column) for column in columns]
            for cells in reader:
                if len(cells) == len(header):
                    yield reader.line_num, [cells[i].strip() for i in wanted]
                elif cells:
                    problems.append(f"{path}, row {reader.line_num}: {len(cells)} columns, expected {len(header)}")
    except FileNotFoundError as error:
        raise UserError(f"{path}: file not found; --dataroot must hold it") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a csv file ({error})") from error


def _parse_coordinates(text: str) -> np.ndarray:
    """A JSON list of 18 finite numbers -> (18,) float32; ValueError says what is wrong."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a list of numbers: '{text[:40]}'") from error
    if not isinstance(values, list) or len(values) != NUM_JOINTS:
        raise ValueError(f"expected a list of {NUM_JOINTS} numbers, got '{text[:40]}'")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is not a finite number")
    return np.array(values, np.float32)


def _bad_name(name: str) -> str | None:
    """Why `name` cannot be a photo below the data root, or None if it can."""
    if not name:
        return "empty photo name"
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return f"'{name}' points outside the photo folder"
    return None


def _stop_on(problems: list[str], path: str | Path, rows: list[Pair] | dict[str, np.ndarray]) -> None:
    if problems:
        raise UserError(f"{path} has bad rows:\n{summarise(problems)}")
    if not rows:
        raise UserError(f"{path}: no rows below the header")
