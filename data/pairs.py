"""PATN's two csv files: which photos make a pair, and where the joints of each photo are (Zhu et al., CVPR 2019).

Pairs: comma separated, columns `from,to`. Keypoints: colon separated, columns `name:keypoints_y:keypoints_x`; both
lists are JSON lists of 18 numbers in pixels of the data set's `csv_size`, in the order of `data.keypoints.JOINTS`, -1
for a missing joint. Some published files have ': ' between the columns, or coordinates outside the photo; both are
accepted.

All problems of a file are collected before any training starts. A message has the first ten with their rows, and the
number of the others.
"""

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from data.keypoints import NUM_JOINTS, TORSO
from util.errors import UserError, summarize
from util.files import check_name_lengths, explain_missing, file_names, write_bytes
from util.image import content_hint, is_photo

PHASES = ("train", "test")
PAIR_COLUMNS = ("from", "to")
KEYPOINT_COLUMNS = ("name", "keypoints_y", "keypoints_x")
WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')  # characters
WINDOWS_DEVICE = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)  # names that open a device
MAX_COORDINATE = 1e6  # pixels; smaller coordinates are exact to 1/16 of a pixel in float32


class Pair(NamedTuple):
    """Two photo names, relative to the photo folder: the network generates `source`'s person in `target`'s pose."""

    source: str
    target: str


def result_name(source: str, target: str, image_format: str = "jpg") -> str:
    """The file name of a generated image, as published: `{source}_2_{target}_vis.jpg`, each by its `result_stem`."""
    return f"{result_stem(source)}_2_{result_stem(target)}_vis.{image_format}"


def result_stem(name: str) -> str:
    """`photo_stem` as a file name that Windows allows: 'a:b.jpg' -> 'a_b', and the name of a device 'con' -> 'con_'."""
    return WINDOWS_DEVICE.sub(r"\1_", WINDOWS_FORBIDDEN.sub("_", photo_stem(name)))


def photo_stem(name: str) -> str:
    """The name of a photo without its suffix, folders joined by underscores: 'a/b.jpg' -> 'a_b'."""
    return str(PurePosixPath(name).with_suffix("")).replace("/", "_")


def result_names(pairs: Iterable[Pair], image_format: str) -> dict[Pair, str]:
    """The `result_name` of each distinct pair, in order. UserError if two would share a file, or a name is too long."""
    names = {pair: result_name(*pair, image_format) for pair in pairs}
    owners: dict[str, Pair] = {}
    for pair, name in names.items():
        if owners.setdefault(name, pair) != pair:
            both = f"{tuple(owners[name])} and {tuple(pair)}"
            raise UserError(f"{name} would be the result of two pairs, {both}: rename one of the photos")
    check_name_lengths(names.values(), "the names of the photos, of which each result's name is made")
    return names


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a csv in file order. Raises UserError that lists the bad rows, for a bad name its first one."""
    table, problems = _read_table(path, ",", PAIR_COLUMNS)
    for name in pd.unique(table.to_numpy().ravel()):  # each name once: it is in dozens of rows
        if problem := _name_problem(name):
            row = table.index[(table == name).any(axis=1)][0]
            problems.append((row, problem))
    _check_rows(problems, path, table)
    return [Pair(*names) for names in zip(*(table[column].tolist() for column in PAIR_COLUMNS))]


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """A csv that `read_pairs` reads."""
    _write_table(path, ",", pd.DataFrame(pairs, columns=PAIR_COLUMNS))


def read_keypoints(path: str | Path) -> dict[str, np.ndarray]:
    """Photo name -> (18,2) float32 of (y, x) in the csv's pixels; a missing joint is (NaN, NaN).

    A joint is missing if either coordinate is exactly -1; other negative numbers are positions outside the photo.
    Raises UserError that lists the bad rows; a name that occurs twice with different keypoints is one.
    """
    table, problems = _read_table(path, ":", KEYPOINT_COLUMNS)
    keypoints: dict[str, np.ndarray] = {}
    for row, name, *texts in zip(table.index, *(table[column].tolist() for column in KEYPOINT_COLUMNS)):
        try:
            values = np.array([_parse_coordinates(text) for text in texts], np.float32)  # (2,18)
        except ValueError as error:
            problems.append((row, f"{name}: {error}"))
            continue
        values[:, (values == -1).any(axis=0)] = np.nan
        if problem := _name_problem(name):
            problems.append((row, problem))
        elif name in keypoints and not np.array_equal(keypoints[name], values.T, equal_nan=True):
            problems.append((row, f"{name} came before with other keypoints; keep one row"))
        keypoints[name] = values.T
    _check_rows(problems, path, table)
    return keypoints


def read_columns(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Columns of a keypoints csv as text, without rows of a wrong length. Raises UserError if one does not exist."""
    return _read_table(path, ":", columns)[0]


def write_keypoints(path: Path, keypoints: Mapping[str, np.ndarray]) -> None:
    """A csv that `read_keypoints` reads, from (18,2) of (y, x); a missing joint is NaN or -1."""
    rows = [(name, *_format_coordinates(joints)) for name, joints in keypoints.items()]
    _write_table(path, ":", pd.DataFrame(rows, columns=KEYPOINT_COLUMNS))


def identity_pairs(keypoints: Mapping[str, np.ndarray], identity: Callable[[str], str]) -> list[Pair]:
    """Every ordered pair of two photos of one identity, both with all shoulders and hips known.

    This is PATN's rule: from the published keypoints it makes as many training pairs of Market-1501 as are published,
    263,632, and with outfits as identities exactly the published 8,570 test pairs of DeepFashion.
    """
    photos: dict[str, list[str]] = {}
    for name, joints in keypoints.items():
        if not np.isnan(joints[TORSO]).any():
            photos.setdefault(identity(name), []).append(name)
    return [Pair(*pair) for names in photos.values() for pair in permutations(names, 2)]


def check_pairs(
    pairs: list[Pair], keypoints: dict[str, np.ndarray], photo_dir: Path, pairs_csv: Path, keypoints_csv: Path
) -> None:
    """Raise UserError that lists the pairs' photos that do not exist, are no photos or have no keypoints."""
    if not photo_dir.is_dir():
        reason = explain_missing([photo_dir.name], (), photo_dir.parent).get(photo_dir.name, "")
        raise UserError(f"{photo_dir}: photo folder not found{reason}; --dataroot must hold it")
    photos = file_names(photo_dir)
    first_row: dict[str, int] = {}
    for row, pair in enumerate(pairs, start=2):  # the row in the file, if it has no blank lines
        for name in pair:
            first_row.setdefault(name, row)
    not_on_disk = explain_missing(first_row.keys() - photos, photos, photo_dir)
    not_in_csv = explain_missing(first_row.keys() - keypoints.keys(), keypoints)
    problems = []
    for name, row in first_row.items():
        if name not in photos:
            problems.append(f"{pairs_csv}, row {row}: no photo {photo_dir / name}{not_on_disk.get(name, '')}")
        elif not is_photo(photo_dir / name):
            hint = content_hint(photo_dir / name)
            problems.append(f"{pairs_csv}, row {row}: {photo_dir / name} is not a photo{f' ({hint})' if hint else ''}")
        if name not in keypoints:
            problems.append(f"{pairs_csv}, row {row}: {name} has no row in {keypoints_csv}{not_in_csv.get(name, '')}")
    if problems:
        raise UserError(f"the data set under {photo_dir.parent} is incomplete:\n{summarize(problems)}")


def hold_out(
    pairs: list[Pair], identity: Callable[[str], str], wanted: int, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Hold out whole identities, in an order fixed by `seed`, until they have at least `wanted` pairs.

    Returns (kept, held out). No photo of a held-out identity is in a kept pair; a pair of two identities of which one
    is held out is in neither list. Raises UserError if there are too few pairs, or none would be left to train on.
    """
    identities = [(identity(pair.source), identity(pair.target)) for pair in pairs]
    own_pairs = Counter(source for source, target in identities if source == target)
    order = sorted({person for people in identities for person in people})
    random.Random(seed).shuffle(order)
    held_out, count = set(), 0
    for person in reversed(order):  # from the end: resumed runs depend on which pairs a seed holds out
        if count >= wanted:
            break
        held_out.add(person)
        count += own_pairs[person]
    kept = [pair for pair, people in zip(pairs, identities) if held_out.isdisjoint(people)]
    if count < wanted or not kept:
        raise UserError(f"--val_pairs {wanted}: too many for {len(pairs)} training pairs of {len(order)} identities")
    return kept, [pair for pair, (source, target) in zip(pairs, identities) if source == target and source in held_out]


def _read_table(
    path: str | Path, separator: str, columns: tuple[str, ...]
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """The cells of `columns` as text, indexed by their row in the file, and (row, problem) of rows of wrong length.

    Rows count from 1, which is the header. Raises UserError if the file cannot be read or lacks a column.
    """
    try:
        cells = _read_cells(Path(path), separator)
    except FileNotFoundError as error:
        raise UserError(f"{path}: file not found") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        advice = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{path}: cannot be read as a csv file ({error}){advice}") from error
    lengths = cells.notna().sum(axis=1)
    width = int(lengths.iloc[0])
    header = [cell.strip() for cell in cells.iloc[0, :width]]
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"{path}: the first row must name the columns {separator.join(columns)}; "
            f"{', '.join(missing)} missing in '{separator.join(header)}'"
        )
    rows = cells[lengths == width].iloc[1:]
    wrong = lengths[(lengths != width) & (lengths > 0)]  # length 0 is a blank line
    problems = [(row, f"{length} columns, expected {width}") for row, length in wrong.items()]
    return pd.DataFrame({column: rows[header.index(column)].str.strip() for column in columns}), problems


def _read_cells(path: Path, separator: str) -> pd.DataFrame:
    """All cells of a file as text, header included, indexed from 1; cells that a short row lacks are NaN or None.

    pandas parses a sound file fast, but stops at the first row that is longer than the header (with `usecols` it would
    silently cut it) and fills short rows with empty text. Therefore a file with a long row or an empty last cell is
    parsed again by the csv module, which is slower but tells the length of every row.
    """
    try:
        cells = pd.read_csv(
            path, sep=separator, header=None, index_col=False, dtype=str, keep_default_na=False,
            skipinitialspace=True, skip_blank_lines=False, encoding="utf-8-sig",
        )  # fmt: skip
        cells.index += 1
        if (cells.iloc[:, -1] != "").all():
            return cells
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        pass
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        numbers, rows = zip(*[(reader.line_num, row) for row in reader] or [(1, [""])])
    return pd.DataFrame(list(rows), index=list(numbers), dtype=object)


def _write_table(path: Path, separator: str, table: pd.DataFrame) -> None:
    text = table.to_csv(sep=separator, index=False, lineterminator="\n")
    write_bytes(path, text.encode())


def _parse_coordinates(text: str) -> list[float]:
    """A JSON list of 18 numbers within ±MAX_COORDINATE -> the numbers. A ValueError's message says what is wrong."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # also for thousands of digits or brackets
        raise ValueError(f"not a list of numbers: '{text[:40]}'") from error
    if not isinstance(values, list) or len(values) != NUM_JOINTS:
        raise ValueError(f"expected a list of {NUM_JOINTS} numbers, got '{text[:40]}'")
    for value in values:
        if type(value) not in (int, float) or not abs(value) < MAX_COORDINATE:  # a bool is an int for isinstance
            raise ValueError(f"{str(value)[:40]} is not a number of pixels within ±{MAX_COORDINATE:,.0f}")
    return values


def _format_coordinates(joints: np.ndarray) -> list[str]:
    """(18,2) of (y, x) -> the JSON lists of y and of x, whole numbers without a decimal point, -1 for NaN."""
    return [str([int(v) if v == int(v) else v for v in axis]) for axis in np.nan_to_num(joints, nan=-1).T.tolist()]


def _name_problem(name: str) -> str | None:
    """The reason why `name` cannot be a photo below the photo folder, or None."""
    if not name:
        return "empty photo name"
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", str(path)):
        return f"'{name}' points outside the photo folder"
    if ":" in path.parts[0]:
        return f"'{name}' has a ':', as drives of Windows have; rename the photo"
    return None


def _check_rows(problems: list[tuple[int, str]], path: str | Path, table: pd.DataFrame) -> None:
    """Raise UserError that lists the (row, problem) in the order of the rows, or if the table is empty."""
    if problems:
        lines = [f"{path}, row {row}: {text}" for row, text in sorted(problems, key=lambda problem: problem[0])]
        raise UserError(f"{path} has bad rows:\n{summarize(lines)}")
    if table.empty:
        raise UserError(f"{path}: no rows below the header")
