"""Pose files of other programs, read into PATN's convention (data/pairs.py) and written from it.

    patn             PATN's keypoints csv
    openpose         OpenPose's JSON of 18 joints (--model_pose COCO) or 25; written with 18
    openpose-body25  the same, written with 25
    dwpose           the JSON of ControlNet's openpose editors, DWPose and ComfyUI: OpenPose's with a canvas size
    coco             COCO's annotation file, 17 joints
    mediapipe        BlazePose's 33 landmarks dumped as JSON

A patn or coco file holds all photos. The other formats have one file per photo, NAME.json or NAME_keypoints.json, in a
folder. Joints that a format lacks are derived or missing: the neck, which coco and mediapipe cannot hold, becomes the
middle of the shoulders when read; BODY_25's middle hip is the middle of the hips; all other joints that PATN lacks are
written as missing. PATN has no confidence, so known joints are written with confidence 1 (coco: 2, visible).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.keypoints import NUM_JOINTS
from inference.formats.base import PoseFormat, PosesByPhoto
from inference.formats.coco import Coco
from inference.formats.mediapipe import MediaPipe
from inference.formats.openpose import DWPose, OpenPose, OpenPoseBody25
from inference.formats.patn import Patn
from inference.formats.photos import UNKNOWN_PHOTOS, Photos
from util.errors import UserError, summarize
from util.files import natural_sort_key

# A file gets the first format that matches, so a narrower format stands before a wider one.
FORMATS: dict[str, PoseFormat] = {
    "patn": Patn(),
    "dwpose": DWPose(),
    "openpose": OpenPose(),
    "openpose-body25": OpenPoseBody25(),
    "coco": Coco(),
    "mediapipe": MediaPipe(),
}
CHOICES = ("largest", "first", "error")  # which of several people in a photo: by `extent`, by the file's order, none


class PoseFile(NamedTuple):
    """What a pose file, or a folder of them, holds."""

    format_name: str  # one of FORMATS
    people: PosesByPhoto


def read_people(path: Path, format_name: str | None = None, photos: Photos = UNKNOWN_PHOTOS) -> PoseFile:
    """The people in each photo of a pose file, or of a folder of JSON files.

    `format_name` is one of FORMATS; None detects it by the content. `photos` gives photo names and sizes that the file
    lacks. Poses are (18,2) float32 of (y, x) in photo pixels, NaN = missing. A coordinate of exactly -1 makes a joint
    missing in every format, because PATN's csv cannot hold it. Raises UserError, also if there is no person at all.
    """
    people: PosesByPhoto = {}
    for file in _pose_files(path):
        content = _load(file)
        format_name = format_name or _detect_format(file, content)
        for name, poses in _parse(file, content, format_name, photos).items():
            if name in people:
                raise UserError(f"{file}: {name} came before in {path}")
            people[name] = poses
    if not any(people.values()):
        raise UserError(f"{path}: no person in it")
    return PoseFile(format_name, people)


def choose_person(people: PosesByPhoto, which: str = "largest") -> dict[str, np.ndarray]:
    """One (18,2) for each photo, all NaN if it has nobody; `which` is one of CHOICES. UserError for "error"."""
    several = [f"{name}: {len(poses)} people" for name, poses in people.items() if len(poses) > 1]
    if several and which == "error":
        raise UserError(f"{len(several)} photos with several people:\n{summarize(several)}")
    key = extent if which == "largest" else lambda pose: 0  # of equals, max takes the first
    nobody = np.full((NUM_JOINTS, 2), np.nan, np.float32)
    return {name: max(poses, key=key, default=nobody) for name, poses in people.items()}


def write_poses(path: Path, poses: Mapping[str, np.ndarray], format_name: str, photos: Photos = UNKNOWN_PHOTOS) -> None:
    """Write (18,2) of (y, x) by photo name, NaN = missing, to one file or to a folder of one JSON file per photo.

    A single photo may go to a .json file in every format. dwpose and mediapipe need the photos' sizes. Each file is
    written atomically, and none before all are encoded. Raises UserError.
    """
    for name in poses:
        _check_photo_name(name, path)
    FORMATS[format_name].write(path, poses, photos)


def extent(pose: np.ndarray) -> float:
    """Pixels: the diagonal of the box around the known joints."""
    return math.hypot(*np.nanmax(pose, axis=0) - np.nanmin(pose, axis=0))


def _pose_files(path: Path) -> list[Path]:
    """`path` itself, or the JSON files in it, in natural order."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    if not (files := [file for file in sorted(path.glob("*.json")) if not file.name.startswith(".")]):
        raise UserError(f"{path}: no .json files in this folder")
    return sorted(files, key=lambda file: natural_sort_key(file.name))


def _load(file: Path) -> Any:
    """The decoded content of a JSON file, or the text of another one."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file; {_known_formats()}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON, or not all of it ({error})") from error


def _detect_format(file: Path, content: Any) -> str:
    for name, pose_format in FORMATS.items():
        if pose_format.matches(content):
            return name
    raise UserError(f"{file}: unknown format; {_known_formats()}")


def _known_formats() -> str:
    return "known formats: " + ", ".join(f"{name} ({pose_format.description})" for name, pose_format in FORMATS.items())


def _parse(file: Path, content: Any, format_name: str, photos: Photos) -> PosesByPhoto:
    """The checked content of one file: photo names are safe, and every pose has a known joint."""
    pose_format = FORMATS[format_name]
    if not pose_format.matches(content):
        raise UserError(f"{file}: not {pose_format.description} ({format_name})")
    try:
        people = pose_format.parse(content, file, photos)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    for name, poses in people.items():
        _check_photo_name(name, file)
        for pose in poses:
            pose[(pose == -1).any(axis=1)] = np.nan
        people[name] = [pose for pose in poses if not np.isnan(pose).all()]
    return people


def _check_photo_name(name: str, file: Path) -> None:
    """UserError for a name that could leave the photo folder, or that PATN's csv cannot hold."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or set(name) & set(':\\"\n\r') or name != name.strip():
        raise UserError(f"{file}: '{name}' cannot be the name of a photo; no colons, quotes or ways out of the folder")
