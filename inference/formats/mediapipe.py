"""The 33 landmarks of MediaPipe's BlazePose, in any of the layouts in which MediaPipe's users dump them as JSON."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

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
from inference.joints import BLAZEPOSE_MIN_VISIBILITY, MEDIAPIPE_33, from_openpose18, to_openpose18

LANDMARK_KEYS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")


class MediaPipe(JsonPerPhoto):
    description = "JSON of BlazePose's 33 landmarks"

    def matches(self, content: Any) -> bool:
        if isinstance(content, dict):
            return any(key in content for key in LANDMARK_KEYS)
        people = _landmark_lists(content)
        return bool(people) and all(isinstance(person, list) and "x" in person[0] for person in people)

    def parse(self, content: Any, file: Path, photos: Photos) -> PosesByPhoto:
        name = photos.name(file.stem)
        people = [_parse_landmarks(landmarks) for landmarks in _landmark_lists(content)]
        if not people:
            return {name: []}
        size = np.array(photos.size(name, declared_size(content)))
        return {name: [to_openpose18(fractions * size, MEDIAPIPE_33) for fractions in people]}

    def encode(self, pose: np.ndarray, name: str, photos: Photos) -> object:
        height, width = photos.size(name)
        numbers = iter(to_triples(from_openpose18(pose, MEDIAPIPE_33) / (height, width), digits=6))
        landmarks = [
            {"x": x, "y": y, "z": 0, "visibility": visibility} for x, y, visibility in zip(numbers, numbers, numbers)
        ]
        people = [] if np.isnan(pose).all() else [landmarks]
        return {"width": width, "height": height, "pose_landmarks": people}


def _landmark_lists(content: Any) -> list[Any]:
    """The landmarks of each person; [] if there are none.

    The content is a list of 33 objects, a list of such lists (Tasks API), or an object that holds either of them under
    one of LANDMARK_KEYS (`pose_landmarks` of the results object; `landmark` of MessageToDict).
    """
    while isinstance(content, dict) and (keys := [key for key in LANDMARK_KEYS if key in content]):
        content = content[keys[0]]
    if not content or not isinstance(content, list):
        return []
    return [content] if isinstance(content[0], dict) else [person for person in content if person]


def _parse_landmarks(landmarks: Any) -> np.ndarray:
    """(33,2) of (y, x) as fractions of the photo. BlazePose invents joints it cannot see: these become missing."""
    if not isinstance(landmarks, list) or len(landmarks) != len(MEDIAPIPE_33):
        raise ValueError(f"not the 33 landmarks of BlazePose: {str(landmarks)[:60]}")
    number = int | float
    triples = [(get_field(m, "x", number), get_field(m, "y", number), m.get("visibility")) for m in landmarks]
    values = [1 if value is None else value for value in chain.from_iterable(triples)]  # without visibility: visible
    keypoints = to_keypoints(values, BLAZEPOSE_MIN_VISIBILITY)
    if np.nanmax(np.abs(keypoints), initial=0) > MAX_FRACTION:
        raise ValueError("landmarks beyond 2: fractions of the photo from 0 to 1 are expected, not pixels")
    keypoints[((keypoints < 0) | (keypoints > 1)).any(axis=1)] = np.nan
    return keypoints
