"""Poses and pose files for tests.

All files of fixtures/ show one person facing the viewer in a photo 400 wide and 600 high, in each program's
own layout and order, with two joints missing: the left wrist and the right ankle.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from data.keypoints import JOINTS

FIXTURES = Path(__file__).parent / "fixtures"
PLACES = {  # (x, y)
    "nose": (200, 80), "neck": (200, 140), "right shoulder": (150, 142), "right elbow": (130, 220),
    "right wrist": (120, 290), "left shoulder": (250, 138), "left elbow": (272, 218), "right hip": (170, 302),
    "right knee": (165, 420), "left hip": (230, 298), "left knee": (236, 418), "left ankle": (242, 538),
    "right eye": (190, 70), "left eye": (210, 69), "right ear": (175, 76), "left ear": (226, 75),
}  # fmt: skip
PERSON = np.array([PLACES.get(name, (np.nan, np.nan))[::-1] for name in JOINTS], np.float32)

# OpenPose's phantom: three joints far apart, found with low confidence, whose box is larger than that of a whole person
PHANTOM = np.full((18, 2), np.nan, np.float32)
PHANTOM[1:4] = (20, 1500), (22, 1400), (1900, 20)


def openpose_person(pose: np.ndarray, confidence: float) -> dict[str, list[float]]:
    """OpenPose's JSON object of a person (18,2)."""
    known = ~np.isnan(pose[:, :1])
    rows = np.where(known, np.column_stack([pose[:, ::-1], np.full(18, confidence)]), 0)
    return {"pose_keypoints_2d": rows.ravel().tolist()}


def random_poses() -> dict[str, np.ndarray]:
    """Joints inside 64 x 128 to a thousandth of a pixel, some missing, nobody in the last."""
    random = np.random.RandomState(0)
    poses = {}
    for name in ("b.jpg", "a 10.png", "a 9.png", "-1_empty.jpg"):
        poses[name] = (random.rand(18, 2) * (127, 63)).round(3).astype(np.float32)
        poses[name][random.rand(18) < 0.2] = np.nan
    poses["-1_empty.jpg"][:] = np.nan
    return poses


def write_photos(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (64, 128)).save(folder / name)
    return folder


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path
