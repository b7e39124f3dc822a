"""PATN's keypoints csv, which training and testing read (data/pairs.py)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.pairs import read_keypoints, write_keypoints
from inference.formats.base import PoseFormat, PosesByPhoto
from inference.formats.photos import Photos


class Patn(PoseFormat):
    description = "PATN's keypoints csv"

    def matches(self, content: Any) -> bool:
        return isinstance(content, str) and "keypoints_y" in content.partition("\n")[0]

    def parse(self, content: str, file: Path, photos: Photos) -> PosesByPhoto:
        return {name: [pose] for name, pose in read_keypoints(file).items()}

    def write(self, path: Path, poses: Mapping[str, np.ndarray], photos: Photos) -> None:
        write_keypoints(path, {name: pose.astype(float).round(3) for name, pose in poses.items()})
