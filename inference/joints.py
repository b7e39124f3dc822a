"""Joint orders of other programs, converted to and from OpenPose's COCO-18: by joint name, never by number."""

from collections.abc import Sequence

import numpy as np

from data.keypoints import JOINTS

# The annotations of the COCO data set, and the networks trained on them.
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

# MediaPipe's BlazePose.
MEDIAPIPE_33 = (
    "nose", "left inner eye", "left eye", "left outer eye", "right inner eye", "right eye", "right outer eye",
    "left ear", "right ear", "left mouth", "right mouth", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left little finger", "right little finger", "left index finger",
    "right index finger", "left thumb", "right thumb", "left hip", "right hip", "left knee", "right knee",
    "left ankle", "right ankle", "left heel", "right heel", "left toes", "right toes",
)  # fmt: skip
BLAZEPOSE_MIN_VISIBILITY = 0.5  # BlazePose states how likely a landmark is visible; below this it is missing


def to_openpose18(keypoints: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(K,2) of (y, x), NaN = missing, in the order `names` -> (18,2) float32 in the order of JOINTS.

    If `names` has no neck, it is the middle of the shoulders where both are known, else missing. Other
    joints that `names` lacks are missing; joints that JOINTS lacks are dropped. Raises ValueError unless there is one
    row for each name.
    """
    known = dict(zip(names, np.asarray(keypoints, np.float32), strict=True))
    known.setdefault("neck", (known["right shoulder"] + known["left shoulder"]) / 2)
    pose = np.stack([known.get(name, np.full(2, np.nan, np.float32)) for name in JOINTS])
    pose[np.isnan(pose).any(axis=1)] = np.nan
    return pose


def from_openpose18(pose: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(18,2) of (y, x), NaN = missing -> (K,2) float64 in the order `names`. A joint that JOINTS lacks is NaN, except
    the middle of the hips, which is computed."""
    known = dict(zip(JOINTS, pose.astype(float)))
    known["middle hip"] = (known["right hip"] + known["left hip"]) / 2
    return np.stack([known.get(name, np.full(2, np.nan)) for name in names])
