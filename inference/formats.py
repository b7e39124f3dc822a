"""Keypoint files of other programs, read into PATN's convention (data/pairs.py) and written from it.

scripts/convert_poses.py --help lists the formats. A patn, coco or detections file holds all photos; the other formats
have one file per photo, NAME.json, NAME_keypoints.json or NAME.txt, in a folder. Joints that a format lacks are derived
or missing: the neck, which COCO and mediapipe cannot hold, becomes the middle of the shoulders when read; BODY_25's
middle hip is the middle of the hips; all other joints that PATN lacks are written as missing. PATN has no confidence,
so known joints are written with confidence 1 (coco: 2, visible).
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.pairs import MAX_COORDINATE
from inference.json_values import short
from inference.layouts import FORMATS
from inference.people import PeopleByPhoto
from inference.photos import UNKNOWN_PHOTOS, Photos, fits_in_csv
from util.errors import UserError
from util.files import natural_sort_key


class PoseFile(NamedTuple):
    """What a keypoint file, or a folder of them, holds."""

    format_name: str  # one of FORMATS
    people: PeopleByPhoto  # each with at least one known joint, in file order
    without_joints: int = 0  # people that were left out because the file has a box, a face or a hand of them only


def read_people(path: Path, format_name: str | None = None, photos: Photos = UNKNOWN_PHOTOS) -> PoseFile:
    """The people in each photo of a keypoint file, or of a folder of .json files (or of .txt, if it has no .json).

    `format_name` is one of FORMATS; with None, the first file that is neither [] nor empty decides by its content, and
    the others must have the same format. `photos` gives photo names and sizes that the file lacks. A coordinate of
    exactly -1 makes a joint missing in every format, because PATN's csv cannot hold it. Raises UserError, also if there
    is no person at all.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files = keypoint_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .json files in this folder (nor YOLO's .txt)")
    people: PeopleByPhoto = {}
    without_joints = 0
    for file in files:
        content = _load(file)
        if content in ([], ""):  # so MMPose and YOLO write a photo without people
            found = {photos.name(file.stem): []}
        else:
            format_name = format_name or _detect(file, content)
            found = _parse(file, content, format_name, photos)
        for name, in_photo in found.items():
            _check_photo_name(name, file)
            if name in people:
                raise UserError(f"{file}: {name} came before in {path}")
            people[name] = [person for person in in_photo if not np.isnan(person.keypoints).all()]
            without_joints += len(in_photo) - len(people[name])
    if not any(people.values()):
        boxes = f"; {without_joints} have no known joint (but a box, a face or a hand)" if without_joints else ""
        raise UserError(f"{path}: no person in it{boxes}")
    return PoseFile(format_name, people, without_joints)


def keypoint_files(folder: Path) -> list[Path]:
    """The .json files in a folder in natural order, or its .txt files if it has no .json."""
    for suffix in (".json", ".txt"):
        files = [file for file in folder.iterdir() if file.suffix.lower() == suffix and not file.name.startswith(".")]
        if files:
            return sorted(files, key=lambda file: (natural_sort_key(file.name), file.name))
    return []


def write_poses(path: Path, poses: Mapping[str, np.ndarray], format_name: str, photos: Photos = UNKNOWN_PHOTOS) -> None:
    """Write (18,2) of (y, x) by photo name, NaN = missing, to one file or to a folder of one JSON file per photo.

    A single photo may go to a .json file in every format but patn. dwpose and mediapipe need the photos' sizes. Each
    file is written atomically, and none before all are encoded. Raises UserError.
    """
    for name in poses:
        _check_photo_name(name, path)
    FORMATS[format_name].write(path, poses, photos)


def _load(file: Path) -> Any:
    """The decoded content of a JSON file, or the text of another file without blanks around it."""
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        content = json.loads(text) if text[:1] in ("{", "[") else text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file; {_known_formats()}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON, or not all of it ({error})") from error
    if not text and file.suffix.lower() != ".txt":  # YOLO's text of a photo without people is empty
        raise UserError(f"{file}: the file is empty; {_known_formats()}")
    return content


def _detect(file: Path, content: Any) -> str:
    """The first of FORMATS that the content looks like. Raises UserError."""
    for name, pose_format in FORMATS.items():
        if pose_format.matches(content):
            return name
    raise UserError(f"{file}: unknown format, begins with {short(content)}; {_known_formats()}")


def _known_formats() -> str:
    return f"known formats are {', '.join(FORMATS)}, see scripts/convert_poses.py --help"


def _parse(file: Path, content: Any, format_name: str, photos: Photos) -> PeopleByPhoto:
    """The people in the content of one file, with coordinates that PATN's csv can hold."""
    pose_format = FORMATS[format_name]
    if not pose_format.matches(content):
        raise UserError(f"{file}: not {pose_format.description} ({format_name})")
    try:
        people = pose_format.parse(content, file, photos)
    except (ValueError, UserError) as error:
        is_named = str(file) in str(error)  # errors of the csv reader name the file already, those about photos do not
        raise UserError(str(error) if is_named else f"{file}: {error}") from error
    for name, found in people.items():
        for pose, _ in found:
            pose[(pose == -1).any(axis=1)] = np.nan
            if (np.abs(pose) >= MAX_COORDINATE).any():
                limits = f"beyond {MAX_COORDINATE:,.0f} pixels; is the image size in the file right?"
                raise UserError(f"{file}: {name} has joints {limits}")
    return people


def _check_photo_name(name: str, file: Path) -> None:
    """UserError for a name that could leave the photo folder, or that PATN's csv cannot hold."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in name or not fits_in_csv(name):
        limits = "no colons, quotes, backslashes, control characters, spaces around it or ways out of the folder"
        raise UserError(f"{file}: {name!r} cannot be the name of a photo; {limits}")
