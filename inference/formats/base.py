"""What the pose file formats share: their interface, and checked access to what JSON files hold."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data.pairs import MAX_COORDINATE, photo_stem
from inference.formats.photos import Photos, Size
from util.errors import UserError
from util.files import atomic_write

# Photo name -> (18,2) of each person who has a known joint, in the file's order
PosesByPhoto = dict[str, list[np.ndarray]]

MAX_FRACTION = 2.0  # no person is two pixels large: coordinates up to this are fractions of the photo, not pixels
SIZE_KEYS = (("height", "width"), ("image_height", "image_width"), ("canvas_height", "canvas_width"))


class PoseFormat(ABC):
    """One format of pose files. `content` is the decoded JSON of a file, or its text if it is not JSON."""

    description: ClassVar[str]

    @abstractmethod
    def matches(self, content: Any) -> bool:
        """Whether the content looks like this format."""

    @abstractmethod
    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """The poses in content that matches. Raises ValueError that says what is wrong."""

    @abstractmethod
    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        """Write one (18,2) for each photo name. Raises UserError."""


class JsonPerPhoto(PoseFormat):
    """A format with one JSON file per photo, named after the photo."""

    suffix: ClassVar[str] = ".json"

    @abstractmethod
    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        """What the JSON file of the photo `name` holds."""

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        one_file = path.suffix.lower() == ".json"
        if one_file and len(poses) > 1:
            raise UserError(f"{path}: this format has one file per photo, and there are {len(poses)}; name a folder")
        contents = {
            path if one_file else path / f"{photo_stem(name)}{self.suffix}": self.encode(pose, name, photos)
            for name, pose in poses.items()
        }
        if len(contents) < len(poses):
            raise UserError(f"{path}: two photos differ only in suffix or folder; rename one")
        for file, content in contents.items():
            write_json(file, content)


def write_json(path: Path, content: object) -> None:
    atomic_write(path, lambda file: file.write((json.dumps(content) + "\n").encode()))


def get_field(container: Any, key: str, kind: Any) -> Any:
    """`container[key]`. Raises ValueError if it is missing or not of that kind."""
    if not isinstance(container, dict) or not isinstance(container.get(key), kind):
        raise ValueError(f"no {key}, or not a proper one, in {str(container)[:60]}")
    return container[key]


def check_numbers(values: Sequence[Any]) -> None:
    """Raise ValueError for the first JSON value that is not a finite number."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_COORDINATE:
            raise ValueError(f"{str(value)[:40]} is not a finite number")


def to_keypoints(values: Sequence[Any], min_confidence: float = 0.0) -> np.ndarray:
    """A flat list of x, y, confidence for each joint -> (K,2) of (y, x), NaN unless confidence > `min_confidence`."""
    check_numbers(values)
    triples = np.array(values, float).reshape(-1, 3)
    return np.where(triples[:, 2:] > min_confidence, triples[:, 1::-1], np.nan)


def to_triples(keypoints: np.ndarray, confidence: int = 1, digits: int = 3) -> list[float]:
    """(K,2) of (y, x) -> a flat list of x, y, `confidence` for each joint, and 0, 0, 0 for a missing one."""
    triples: list[float] = []
    for y, x in keypoints.tolist():
        triples += [0, 0, 0] if math.isnan(y + x) else [round(x, digits), round(y, digits), confidence]
    return triples


def declared_size(container: Any) -> Size | None:
    """(H, W) of the photo if the JSON object states it, else None. Raises ValueError for an invalid size."""
    for keys in SIZE_KEYS:
        if isinstance(container, dict) and all(container.get(key) for key in keys):
            height, width = (container[key] for key in keys)
            check_numbers((height, width))
            if min(height, width) <= 0:
                raise ValueError(f"{keys[0]} {height} and {keys[1]} {width} are not a size")
            return height, width
    return None
