"""Where poses come from: photos, videos, keypoint files, rows of a keypoints csv."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.pairs import photo_stem, read_keypoints
from inference.estimators import Estimator
from inference.formats import keypoint_files, read_people
from inference.people import Person, describe_left_out, rank
from inference.photos import Photos
from inference.video import ANIMATIONS, VIDEOS, is_moving, read_frames
from util.errors import UserError
from util.files import explain_missing, natural_sort_key
from util.image import content_hint, decode_photo, is_photo, photo_names

ROW_PREFIX, KEYPOINT_SUFFIXES = "csv:", (".csv", ".json", ".txt")

read_csv_once = lru_cache(read_keypoints)  # several values of --pose may be rows of one file


class KeypointCsvs(NamedTuple):
    """Where csv:NAME is looked up, in this order."""

    files: Sequence[Path] = ()
    scale: np.ndarray | float = 1.0  # pixels of the stored size per pixel of these files, for y and x


class PoseSource(NamedTuple):
    """The poses of one value of --pose. Photos are decoded one at a time, when `find_people` asks for them."""

    what: str  # the value of --pose, for messages
    # name, and a function that returns the photo to search, or the people, the most prominent first
    entries: Iterable[tuple[str, Callable[[], Image.Image] | list[Person]]]
    count: int | None  # None for a video or an animation, whose frames are not counted in advance
    needs_estimator: bool = False  # the entries are photos
    fps: float | None = None  # of a video that states it
    in_stored_pixels: bool = False  # keypoints are in pixels of the data set's stored size already


class FoundPeople(NamedTuple):
    """The people of one photo, video frame or row."""

    name: str
    people: list[Person]  # the most prominent first, who is taken
    photo_size: tuple[int, int] | None  # (H, W), None if not known


def read_photo(path: Path) -> Image.Image:
    """A user's photo as RGB, as viewers show it (util/image.py). Raises UserError."""
    if not path.is_file():
        present = os.listdir(path.parent) if path.parent.is_dir() else ()
        reason = explain_missing([path.name], present, path.parent).get(path.name, "")
        raise UserError(f"{path}: no such photo{reason}")
    return decode_photo(path)


def open_poses(text: str, csvs: KeypointCsvs, every: int = 1, size: tuple[int, int] | None = None) -> PoseSource:
    """Every `every`-th pose of a photo, a folder, a video, a keypoint file, a folder of these, or of 'csv:NAME'.

    csvs: where csv:NAME is looked up. Poses of these files come in pixels of the stored size.
    size: (H, W) of the photos of keypoint files; fractions, and pixels of another canvas, are scaled to it.

    In a folder of photos and keypoint files, the photos are searched and the keypoint files ignored, with a note.
    Keypoint files are read at once, photos and videos when `find_people` needs them. Raises UserError.
    """
    if text.startswith(ROW_PREFIX):
        name = text.removeprefix(ROW_PREFIX)
        pose = _find_row(name, csvs)
        people = [] if np.isnan(pose).all() else [Person(pose)]
        return PoseSource(text, [(name, people)], 1, in_stored_pixels=True)
    path = Path(text)
    if not path.exists():
        raise UserError(f"{path}: no such photo, video, keypoint file or folder; rows of a csv are {ROW_PREFIX}NAME")
    if path.is_dir():
        files = keypoint_files(path)
        listed = photo_names(path, expected={file.name for file in files})
        photos = sorted(listed, key=lambda name: (natural_sort_key(name), name))
        if not photos and not files:
            raise UserError(f"{path}: neither photos nor keypoint files (.json, .txt) in this folder")
        if photos and files:
            print(f"note: {path}: it has photos, so its keypoint files are not read", file=sys.stderr)
    elif is_moving(path):
        frames, fps = read_frames(path, every)
        return PoseSource(text, ((name, frame.copy) for name, frame in frames), None, needs_estimator=True, fps=fps)
    elif path.suffix.lower() in KEYPOINT_SUFFIXES:
        photos = []
    elif is_photo(path):
        photos = [path.name]
    else:
        moving, keypoints, hint = ", ".join(VIDEOS + ANIMATIONS), ", ".join(KEYPOINT_SUFFIXES), content_hint(path)
        what = f"neither a photo, a video ({moving}) nor a keypoint file ({keypoints})"
        raise UserError(f"{path}: {what}{f' ({hint})' if hint else ''}")
    if photos := photos[::every]:
        folder = path if path.is_dir() else path.parent
        entries = [(name, partial(read_photo, folder / name)) for name in photos]
        return PoseSource(text, entries, len(photos), needs_estimator=True)
    _, people, without_joints = read_people(path, photos=Photos(size=size))
    if without_joints:
        print(f"note: {path}: {describe_left_out(without_joints)}", file=sys.stderr)
    names = sorted(people, key=natural_sort_key)[::every]
    is_one_of_csvs = path.resolve() in [file.resolve() for file in csvs.files]
    if is_one_of_csvs:
        people = {name: [one._replace(keypoints=one.keypoints * csvs.scale) for one in people[name]] for name in names}
    entries = [(name, rank(people[name])) for name in names]
    return PoseSource(text, entries, len(entries), in_stored_pixels=is_one_of_csvs)


def read_people_of(photo: Path, text: str, size: tuple[int, int], csvs: KeypointCsvs) -> list[Person]:
    """The people of a photo of `size` (H, W) from `text`, a keypoint file or 'csv:NAME', the most prominent first.

    If there are several entries, the one named after the photo is taken. Raises UserError if there is none, or more
    than one.
    """
    source = open_poses(text, csvs, size=size)
    if source.needs_estimator:
        suffixes = ", ".join(KEYPOINT_SUFFIXES)
        raise UserError(f"--source_pose {text}: a keypoint file ({suffixes}) or {ROW_PREFIX}NAME is needed")
    rows = dict(source.entries)
    found = [name for name in rows if len(rows) == 1 or photo_stem(Path(name).name) == photo.stem]
    if len(found) != 1:
        number = len(found) or "no"
        raise UserError(f"--source_pose {text}: {number} entries for {photo.name}{_suggest(photo.name, rows)}")
    return rows[found[0]]


def find_people(source: PoseSource, estimator: Estimator | None) -> Iterator[FoundPeople]:
    """The people of each entry; in photos, those that the estimator finds."""
    for name, entry in source.entries:
        if source.needs_estimator:  # then the entries are functions that return a photo
            photo = entry()
            yield FoundPeople(name, estimator.find_people(photo), (photo.height, photo.width))
        else:
            yield FoundPeople(name, entry, None)


def _find_row(name: str, csvs: KeypointCsvs) -> np.ndarray:
    """(18,2) of the row `name` in the first csv file that has it, in pixels of the stored size."""
    files = [file for file in csvs.files if file.is_file()]
    if not files:
        missing = " or ".join(map(str, csvs.files))
        raise UserError(f"{ROW_PREFIX}{name}: no {missing}; check --dataroot or --keypoints_csv")
    for file in files:
        if name in (rows := read_csv_once(file)):
            return rows[name] * csvs.scale
    names = [other for file in files for other in read_csv_once(file)]
    raise UserError(f"{ROW_PREFIX}{name}: no such row in {' or '.join(map(str, files))}{_suggest(name, names)}")


def _suggest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
