"""Where poses come from: photos, videos, keypoint files, rows of a csv; and their way into the stored picture."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from data.keypoints import JOINTS
from data.pairs import photo_stem, read_keypoints
from inference.advice import Advice, advise
from inference.estimators import Estimator
from inference.formats import UNKNOWN, Photos, extent, read_people
from inference.framing import Frame, as_it_is, can_be_framed, frame_people, frame_person, to_frame
from inference.tracks import clean
from inference.video import ANIMATIONS, VIDEOS, read_frames
from util.errors import UserError
from util.files import natural_sort_key
from util.image import PHOTO_SUFFIXES, decode_photo, is_photo

People = list[np.ndarray]  # (18,2) of (y, x) of everybody in one picture, the largest first
ROW = "csv:"
MOSTLY = 0.1  # of a sequence's poses may have faults, which its neighbors mend or nobody sees
FOLLOW = 0.5  # seconds over which the view of a sequence follows the person


class Poses(NamedTuple):
    """What one text stands for. Pictures are decoded one at a time, when somebody asks for them."""

    what: str
    found: Iterable[tuple[str, Callable[[], Image.Image] | People]]  # name, and a picture to search or who is in it
    count: int | None  # None for a video or an animation, which tells at its end
    searched: bool = False  # pictures, for which an estimator is needed
    fps: float | None = None  # where the file says
    stored: bool = False  # in pixels of the stored picture


class Pose(NamedTuple):
    """One picture's people, and its size (H, W) where it is known."""

    name: str
    people: People
    size: tuple[int, int] | None


class Placed(NamedTuple):
    """Poses in pixels of the stored picture, float32 (T,18,2), with their names and what speaks against them."""

    names: list[str]
    keypoints: np.ndarray
    advice: list[Advice]


def read_photo(path: Path) -> Image.Image:
    """A user's photo as RGB, turned upright where it says how it was held. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such photo")
    return ImageOps.exif_transpose(decode_photo(path))


def find_poses(text: str, csv_files: Sequence[Path], every: int = 1, photos: Photos = UNKNOWN) -> Poses:
    """Every `every`-th pose of a photo, a folder, a video, a keypoint file or a folder of them, or of 'csv:NAME'.

    `csv_files` are where csv:NAME is looked for, in this order; those that exist are in pixels of the stored picture.
    Keypoint files are read here, photos only looked for. Raises UserError.
    """
    if text.startswith(ROW):
        name = text.removeprefix(ROW)
        return Poses(text, [(name, [_row(name, csv_files)])], 1, stored=True)
    path = Path(text)
    if not path.exists():
        raise UserError(f"{path}: no such photo, video, keypoint file or folder; rows of a csv are {ROW}NAME")
    suffix = path.suffix.lower()
    if suffix in VIDEOS or (suffix in ANIMATIONS and _moves(path)):
        frames, fps = read_frames(path, every)
        return Poses(text, ((name, picture.copy) for name, picture in frames), None, searched=True, fps=fps)
    files = [file for file in path.iterdir() if is_photo(file)] if path.is_dir() else [path]
    if files and (path.is_dir() or suffix in {*PHOTO_SUFFIXES, *ANIMATIONS}):
        chosen = sorted(files, key=lambda file: (natural_sort_key(file.name), file.name))[::every]
        return Poses(text, [(file.name, partial(read_photo, file)) for file in chosen], len(chosen), searched=True)
    if not path.is_dir() and suffix not in (".csv", ".json"):
        raise UserError(f"{path}: neither a photo, a video ({', '.join(VIDEOS + ANIMATIONS)}) nor a .csv or .json")
    if path.is_dir() and not any(file.suffix.lower() == ".json" for file in path.iterdir()):
        raise UserError(f"{path}: neither photos (.jpg, .png) nor keypoint files (.json) in this folder")
    people = read_people(path, photos=photos).people
    rows = [(name, sorted(people[name], key=extent, reverse=True)) for name in sorted(people, key=natural_sort_key)][
        ::every
    ]
    stored = path.resolve() in [file.resolve() for file in csv_files]
    return Poses(text, rows, len(rows), stored=stored)


def find_own_pose(text: str, photo: Path, size: tuple[int, int], csv_files: Sequence[Path]) -> People:
    """The people of a photo of `size` (H, W) from a keypoint file or 'csv:NAME'; of several photos that of its name."""
    poses = find_poses(text, csv_files, photos=Photos(size=size))
    if poses.searched:
        raise UserError(f"--source_pose {text}: a keypoint file (.csv, .json) or {ROW}NAME is needed")
    rows = dict(poses.found)
    if len(rows) == 1:
        return next(iter(rows.values()))
    of_stem = [people for name, people in rows.items() if photo_stem(Path(name).name) == photo.stem]
    if len(of_stem) != 1:
        raise UserError(f"{text}: {len(of_stem) or 'no'} rows for {photo.name}{_similar(photo.name, rows)}")
    return of_stem[0]


def _row(name: str, csv_files: Sequence[Path]) -> np.ndarray:
    files = [file for file in csv_files if file.is_file()]
    if not files:
        raise UserError(f"{ROW}{name}: no {' or '.join(map(str, csv_files))}; check --dataroot or --keypoints_csv")
    for file in files:
        if name in (rows := _read_once(file)):
            return rows[name]
    names = [other for file in files for other in _read_once(file)]
    raise UserError(f"{ROW}{name}: no such row in {' or '.join(map(str, files))}{_similar(name, names)}")


_read_once = lru_cache(read_keypoints)


def _similar(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _moves(path: Path) -> bool:
    try:
        with Image.open(path) as file:
            return getattr(file, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def search(poses: Poses, estimator: Estimator | None) -> Iterable[Pose]:
    """The poses one by one, pictures searched by the estimator."""
    for name, found in poses.found:
        if callable(found):
            picture = found()
            people = [person.keypoints for person in estimator.people(picture)]
            yield Pose(name, people, (picture.height, picture.width))
        else:
            yield Pose(name, found, None)


def view(photo: Pose, size: tuple[int, int], style: str) -> tuple[Frame | None, list[Advice]]:
    """How a source photo is framed to `size` (H, W), None where it cannot be; and what speaks against the photo."""
    frame = None
    if photo.size == size:
        frame = as_it_is(size)
    elif photo.people and can_be_framed(photo.people[0]):
        frame = frame_person(photo.people[0], size, style)
    return frame, advise(photo.people, photo.size, frame, photo.name)


def place(poses: Sequence[Pose], size: tuple[int, int], style: str, keep: bool | None) -> Placed:
    """Each pose by itself. `keep`: in pixels of the stored picture already; None: if its photo has that size.

    Those without a person are left out, and there is fatal advice for each.
    """
    names, placed, advice = [], [], []
    for pose in poses:
        against = advise(pose.people, None, None, pose.name)
        advice += against
        if not any(one.fatal for one in against):
            names.append(pose.name)
            placed.append(_placed(pose.people[0][None], size, style, _kept(pose, size, keep))[0])
    return Placed(names, np.array(placed, np.float32).reshape(-1, len(JOINTS), 2), advice)


def place_sequence(
    poses: Sequence[Pose], size: tuple[int, int], style: str, keep: bool | None, fps: float, smooth: bool, what: str
) -> Placed:
    """Successive poses of one person, `fps` a second: cleaned (inference/tracks.py) if `smooth`, and framed as one.

    Moments without a person, where they are too many to fill in, are left out.
    """
    nobody = np.full((len(JOINTS), 2), np.nan)
    track = np.stack([pose.people[0] if pose.people else nobody for pose in poses])
    if smooth:
        track = clean(track, fps)
    against = [
        advise([] if np.isnan(now).all() else [now, *pose.people[1:]], None, None, pose.name)
        for now, pose in zip(track, poses)
    ]
    bad = [found[0] for found in against if found]
    usable = np.array([not any(one.fatal for one in found) for found in against])
    advice = []
    if not usable.any() or len(bad) > MOSTLY * len(poses):
        several = f"{what}: {len(bad)} of {len(poses)} poses have faults, the first is " if len(poses) > 1 else ""
        advice = [Advice(f"{several}{bad[0].text}", not usable.any())]
    names = [pose.name for pose, good in zip(poses, usable) if good]
    if not usable.any():
        return Placed(names, track[:0].astype(np.float32), advice)
    kept = all(_kept(pose, size, keep) for pose in poses)
    return Placed(names, _placed(track[usable], size, style, kept, FOLLOW * fps), advice)


def _kept(pose: Pose, size: tuple[int, int], keep: bool | None) -> bool:
    return pose.size == size if keep is None else keep


def _placed(track: np.ndarray, size: tuple[int, int], style: str, keep: bool, follow: float = 1.0) -> np.ndarray:
    if keep:
        return track.astype(np.float32)
    frames = frame_people(track, size, style, follow)
    return np.stack([to_frame(pose, frame) for pose, frame in zip(track, frames)])
