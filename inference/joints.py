"""Joint orders of other programs, and the way from each to OpenPose's COCO-18: by name, never by number."""

from collections.abc import Sequence

import numpy as np

from data.keypoints import JOINTS

# Annotations of the COCO data set, and the networks trained on them.
COCO_17 = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle",
    "right ankle",
)  # fmt: skip

# OpenPose's later order; its first 8 joints are those of COCO-18.
BODY_25 = (
    *JOINTS[:8], "middle hip", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear", "left big toe", "left small toe", "left heel", "right big toe",
    "right small toe", "right heel",
)  # fmt: skip

# BlazePose.
MEDIAPIPE_33 = (
    "nose", "left inner eye", "left eye", "left outer eye", "right inner eye", "right eye", "right outer eye",
    "left ear", "right ear", "left mouth", "right mouth", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left little finger", "right little finger", "left index finger",
    "right index finger", "left thumb", "right thumb", "left hip", "right hip", "left knee", "right knee",
    "left ankle", "right ankle", "left heel", "right heel", "left toes", "right toes",
)  # fmt: skip


def to_openpose18(points: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(K,2) of (y, x), NaN = missing, in the order `names` -> (18,2) float32 in the order of JOINTS.

    Where `names` has no neck it is the middle of the shoulders, missing unless both are known. Joints that `names`
    lacks are missing; those that JOINTS lacks are dropped.
    """
    known = dict(zip(names, np.asarray(points, np.float32), strict=True))
    if "neck" not in known:
        known["neck"] = (known["right shoulder"] + known["left shoulder"]) / 2
    missing = np.full(2, np.nan, np.float32)
    pose = np.stack([known.get(name, missing) for name in JOINTS])
    pose[np.isnan(pose).any(axis=1)] = np.nan
    return pose
