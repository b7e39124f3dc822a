"""PATN's two csv files: which photos make a pair, and where the joints of each photo are.

Pairs: comma separated, columns `from,to`. Keypoints: colon separated, columns `name:keypoints_y:keypoints_x`, each
list a JSON list of 18 numbers in pixels of the stored photo, -1 for a missing joint (Zhu et al., CVPR 2019; OpenPose's
COCO-18 order). Files in the wild also write ': ' and put coordinates outside the photo; both are read as they are.

Every problem of a file is collected and reported with its row before any training starts.
"""

import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from data.keypoints import NUM_JOINTS, TORSO
from util.errors import UserError, summarize
from util.files import atomic_write, file_names

PHASES = ("train", "test")
LARGEST = 1e6  # pixels; float32 and whole numbers hold what is below


class Pair(NamedTuple):
    """Two photo names, relative to the photo folder: `source` is redrawn in the pose of `target`."""

    source: str
    target: str


def result_name(source: str, target: str, image_format: str = "jpg") -> str:
    """File name of a generated image, as published: `{source stem}_2_{target stem}_vis.jpg`."""
    return f"{photo_stem(source)}_2_{photo_stem(target)}_vis.{image_format}"


def photo_stem(name: str) -> str:
    """A photo's part of a result's name; a folder becomes part of it ('a/b.jpg' -> 'a_b')."""
    return str(PurePosixPath(name).with_suffix("")).replace("/", "_")


def result_names(pairs: Iterable[Pair], image_format: str) -> dict[Pair, str]:
    """`result_name` of each different pair, in order. Raises UserError where two would be written to one file."""
    names = {pair: result_name(*pair, image_format) for pair in pairs}
    owners: dict[str, Pair] = {}
    for pair, name in names.items():
        if owners.setdefault(name, pair) != pair:
            raise UserError(
                f"{name} would be the result of two pairs, {tuple(owners[name])} and {tuple(pair)}: rename one"
            )
    return names


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a csv in file order. Raises UserError listing all bad rows."""
    pairs, problems = [], []
    checked: set[str] = set()  # a name is in dozens of rows
    for row, pair in _rows(path, ",", ("from", "to"), problems):
        for name in pair:
            if name not in checked:
                checked.add(name)
                if reason := _bad_name(name):
                    problems.append(f"{path}, row {row}: {reason}")
        pairs.append(Pair._make(pair))
    _stop_on(problems, path, pairs)
    return pairs


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """A csv that `read_pairs` reads."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("from", "to"), *pairs])  # a comma in a name needs quotes
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


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


def read_columns(path: str | Path, columns: tuple[str, ...]) -> list[list[str]]:
    """The cells of `columns` of a keypoints csv, as text, row by row. Raises UserError where a column is missing."""
    return [cells for _, cells in _rows(path, ":", columns, [])]


def write_keypoints(path: Path, keypoints: Mapping[str, np.ndarray]) -> None:
    """A csv that `read_keypoints` reads, from (18,2) of (y, x); NaN or -1 is a missing joint."""
    lines = ["name:keypoints_y:keypoints_x"]
    for name, joints in keypoints.items():
        y, x = np.nan_to_num(joints, nan=-1).T.tolist()
        lines.append(f"{name}:{[_shortest(v) for v in y]}:{[_shortest(v) for v in x]}")
    atomic_write(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def _shortest(value: float) -> float:
    return int(value) if value == int(value) else value


def identity_pairs(keypoints: Mapping[str, np.ndarray], identity: Callable[[str], str]) -> list[Pair]:
    """Every ordered pair of two photos of one identity whose shoulders and hips are all known.

    This is PATN's rule: from the published keypoints it makes exactly the 263,632 training pairs of Market-1501 and, by
    outfits, the 8,570 test pairs of DeepFashion.
    """
    photos: dict[str, list[str]] = {}
    for name, joints in keypoints.items():
        if not np.isnan(joints[TORSO]).any():
            photos.setdefault(identity(name), []).append(name)
    return [Pair(*pair) for names in photos.values() for pair in permutations(names, 2)]


def check_pairs(
    pairs: list[Pair], keypoints: dict[str, np.ndarray], photo_dir: Path, pairs_csv: Path, keypoints_csv: Path
) -> None:
    """Raise UserError, listing them, for pairs whose photo or keypoint row does not exist."""
    if not photo_dir.is_dir():
        raise UserError(f"{photo_dir}: photo folder not found; --dataroot must hold it")
    photos = file_names(photo_dir)
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
        raise UserError(f"the data set under {photo_dir.parent} is incomplete:\n{summarize(problems)}")


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
    except (ValueError, RecursionError) as error:  # bad JSON, a number of thousands of digits, brackets without end
        raise ValueError(f"not a list of numbers: '{text[:40]}'") from error
    if not isinstance(values, list) or len(values) != NUM_JOINTS:
        raise ValueError(f"expected a list of {NUM_JOINTS} numbers, got '{text[:40]}'")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            raise ValueError(f"{str(value)[:40]} is not a finite number of pixels")
    return np.array(values, np.float32)


def _bad_name(name: str) -> str | None:
    """Why `name` cannot be a photo below the data root, or None if it can."""
    if not name:
        return "empty photo name"
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        return f"'{name}' points outside the photo folder"
    return None


def _stop_on(problems: list[str], path: str | Path, rows: list[Pair] | dict[str, np.ndarray]) -> None:
    if problems:
        raise UserError(f"{path} has bad rows:\n{summarize(problems)}")
    if not rows:
        raise UserError(f"{path}: no rows below the header")
