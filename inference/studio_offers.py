"""What the page of scripts/studio.py and scripts/export_page.py shows first: rendered people, and poses to click."""

import base64
import io
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data import find_dataset
from data.keypoints import JOINTS
from data.pairs import read_keypoints
from data.synthetic.body import Posture
from data.synthetic.people import LOOKS, RenderedPhoto, random_scene, render_identity, render_photo
from data.synthetic.walk import render_walk
from inference.framing import can_be_framed
from inference.pose_transfer import PoseTransfer
from util.draw_pose import JOINT_COLORS, LIMB_COLORS, LIMBS

FPS = 12.0  # poses per second, on the page and in its GIF
EXAMPLES = 6  # rendered people that the page offers
PRESETS = 16  # poses of the data set that it offers beside those of a rendered person
SEED = 1  # not that of pretrained/rendered_market's training


class Offers(NamedTuple):
    """What the page offers before a photo is chosen. Poses are (18,2) in pixels of the stored size."""

    examples: list[tuple[Image.Image, np.ndarray]]  # people to click: images of the stored size and their poses
    presets: list[np.ndarray]  # poses to click
    walk: list[np.ndarray]  # to play
    template: np.ndarray  # a standing person, for photos where no estimator runs


def render_offers(mode: str, size: tuple[int, int]) -> Offers:
    """Rendered people at `size` (H, W), in the look of data set `mode`, or of fashion if LOOKS does not have it."""
    mode = mode if mode in LOOKS else "fashion"
    people = [_standing_person(number, mode) for number in range(EXAMPLES)]
    examples = [(Image.fromarray(photo.pixels).resize(size[::-1]), _keypoints_at(photo, size)) for photo in people]
    presets = [_keypoints_at(photo, size) for photo in render_identity(1, mode, photos=8, seed=SEED)]
    walk = [_keypoints_at(photo, size) for photo in render_walk(mode, frames=12, cycles=1.0, yaw=60.0, seed=SEED)]
    return Offers(examples, presets, walk, examples[0][1])


def data_set_poses(opt: Namespace) -> list[np.ndarray]:
    """PRESETS poses that can be framed, evenly spaced in the test split's csv; none if there is no such file.

    They are (18,2) in pixels of the stored size.
    """
    dataset = find_dataset(opt.dataset_mode)
    path = Path(opt.dataroot) / dataset.keypoints_csv.format(phase="test")
    rows = read_keypoints(path).values() if path.is_file() else []
    poses = [pose * dataset.csv_scale() for pose in rows if can_be_framed(pose)]
    return [poses[round(number)] for number in np.linspace(0, len(poses) - 1, min(PRESETS, len(poses)))]


def _standing_person(number: int, mode: str) -> RenderedPhoto:
    """A person who stands and looks into the camera, more or less."""
    random = np.random.default_rng([SEED, number])
    person, background = random_scene(random, mode)
    posture = Posture(yaw=float(random.normal(0, 15)))
    return render_photo("", person, posture, background, find_dataset(mode).stored_size, random)


def _keypoints_at(photo: RenderedPhoto, size: tuple[int, int]) -> np.ndarray:
    """The keypoints (18,2) in pixels of the photo resized to `size` (H, W)."""
    return photo.keypoints * (np.array(size) / photo.pixels.shape[:2])


def describe_offers(transfer: PoseTransfer, offers: Offers) -> dict[str, Any]:
    """`offers`, sizes and colors as the page reads them, from JSON."""
    return {
        "name": transfer.opt.name, "size": transfer.stored_size, "fps": FPS,
        "joints": JOINTS, "limbs": LIMBS, "joint_colors": JOINT_COLORS, "limb_colors": LIMB_COLORS,
        "examples": [{"image": to_url(image), "keypoints": to_json(pose)} for image, pose in offers.examples],
        "presets": [to_json(pose) for pose in offers.presets],
        "walk": [to_json(pose) for pose in offers.walk],
    }  # fmt: skip


def to_json(pose: np.ndarray) -> list[list[float] | None]:
    """(18,2), NaN = missing -> 18 [y, x], None = missing."""
    return [None if np.isnan(joint).any() else [round(float(number), 3) for number in joint] for joint in pose]


def to_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def to_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(to_png(image)).decode()}"
