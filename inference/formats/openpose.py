"""OpenPose's JSON, and what ControlNet's programs made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data.keypoints import JOINTS
from inference.formats.base import (
    MAX_FRACTION,
    JsonPerPhoto,
    PosesByPhoto,
    declared_size,
    get_field,
    to_keypoints,
    to_triples,
)
from inference.formats.photos import Photos
from inference.joints import BODY_25, from_openpose18, to_openpose18

JOINTS_BY_COUNT = {54: JOINTS, 75: BODY_25}  # the joint order by the count of numbers, three for each joint
MIN_FRACTION = -0.2  # a joint may lie a little outside the photo; below this, coordinates run from -1 to 1


class OpenPose(JsonPerPhoto):
    """One JSON object for one photo, or a list of them, as ControlNet's editors write for a video."""

    description = "OpenPose's JSON of people"
    suffix = "_keypoints.json"
    names: ClassVar[Sequence[str]] = JOINTS  # the joints that are written

    def matches(self, content: Any) -> bool:
        frames = _as_frames(content)
        return bool(frames) and all(isinstance(frame, dict) and "people" in frame for frame in frames)

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        """Of several frames in one file, the photos are STEM_0000, STEM_0001 and so on."""
        stem, frames = file.stem.removesuffix("_keypoints"), _as_frames(content)
        stems = [stem] if len(frames) == 1 else [f"{stem}_{number:04d}" for number in range(len(frames))]
        names = [photos.name(stem) for stem in stems]
        return {name: _parse_frame(frame, name, photos) for name, frame in zip(names, frames)}

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        people = [{"person_id": [-1], **person} for person in _encode_people(pose, self.names)]
        return {"version": 1.3, "people": people}


class OpenPoseBody25(OpenPose):
    description = "OpenPose's JSON, written with 25 joints"
    names = BODY_25


class DWPose(OpenPose):
    """OpenPose's JSON with the size of the canvas that the pose was drawn on."""

    description = "JSON of people, canvas_width and canvas_height"
    suffix = ".json"

    def matches(self, content: Any) -> bool:
        return super().matches(content) and any("canvas_width" in frame for frame in _as_frames(content))

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        return {"people": _encode_people(pose, JOINTS), "canvas_height": height, "canvas_width": width}


def _as_frames(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _parse_frame(frame: Any, name: str, photos: Photos) -> list[np.ndarray]:
    """The poses of one photo. Fractions, and pixels of a canvas whose photo has another size, become photo pixels."""
    people = []  # (K,2) and the joint order of each
    for person in get_field(frame, "people", list):
        if not isinstance(person, dict) or "pose_keypoints_2d" not in person:
            raise ValueError(f"no pose_keypoints_2d in {str(person)[:60]}")
        if person["pose_keypoints_2d"]:  # it is null or [] if only a face or a hand was found
            numbers = get_field(person, "pose_keypoints_2d", list)
            if len(numbers) not in JOINTS_BY_COUNT:
                raise ValueError(f"pose_keypoints_2d has {len(numbers)} numbers, not 54 (18 joints) or 75 (BODY_25)")
            people.append((to_keypoints(numbers), JOINTS_BY_COUNT[len(numbers)]))
    canvas, scale = declared_size(frame), np.ones(2)
    if _are_fractions([keypoints for keypoints, _ in people]):
        scale = np.array(photos.size(name, canvas))
    elif canvas:
        scale = np.array(photos.size(name, canvas)) / canvas
    return [to_openpose18(keypoints * scale, names) for keypoints, names in people]


def _are_fractions(people: Sequence[np.ndarray]) -> bool:
    """Whether (K,2) coordinates are fractions of the photo. ValueError for OpenPose's third kind, from -1 to 1."""
    values = np.concatenate([keypoints[~np.isnan(keypoints)] for keypoints in people] or [np.zeros(0)])
    if not values.size or np.abs(values).max() > MAX_FRACTION:
        return False
    if values.min() < MIN_FRACTION:
        raise ValueError("coordinates from -1 to 1; only pixels and fractions from 0 to 1 can be read")
    return True


def _encode_people(pose: np.ndarray, names: Sequence[str]) -> list[dict[str, object]]:
    """A list of the one person, or of nobody."""
    if np.isnan(pose).all():
        return []
    parts: dict[str, object] = {f"{part}_keypoints_2d": [] for part in ("face", "hand_left", "hand_right")}
    return [{"pose_keypoints_2d": to_triples(from_openpose18(pose, names)), **parts}]
