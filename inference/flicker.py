"""How much the background of a generated sequence flickers."""

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from data.keypoints import HIPS, NECK
from util.draw_pose import LIMBS

MASK_RADIUS = 0.45  # fraction of the length from neck to hips: clothes, hands and feet are this close to the skeleton
MIN_MASK_RADIUS = 1 / 9  # fraction of the image's height


def flicker(images: np.ndarray, track: np.ndarray) -> float:
    """Mean absolute difference of successive images outside the person, in 8-bit levels: 0 is a still background.

    images: uint8 (T,3,H,W); track: (T,18,2) of (y, x) in their pixels. Pixels near the person of either image
    (`near_person`) are left out, and so are images without a pose. NaN if nothing is left to compare.
    """
    masks = [near_person(pose, images.shape[2:]) for pose in track]
    has_pose = ~np.isnan(track).any(axis=2).all(axis=1)
    total, pixels = 0.0, 0
    for now in range(1, len(images)):
        outside = ~(masks[now - 1] | masks[now])
        if has_pose[now - 1] and has_pose[now]:
            difference = images[now][:, outside].astype(int) - images[now - 1][:, outside]
            total += float(np.abs(difference).sum())
            pixels += difference.size
    return total / pixels if pixels else math.nan


def near_person(pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(18,2) -> bool `size` (H, W): all pixels near the skeleton, in a radius that covers the whole person."""
    torso = pose[NECK] - pose[HIPS].mean(axis=0)
    head, thighs = pose[NECK] + 0.5 * torso, pose[NECK] - 2 * torso  # covered even if their joints are missing
    lines = [(pose[a], pose[b]) for a, b in LIMBS] + [(joint, joint) for joint in pose] + [(head, thighs)]
    canvas = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(canvas)
    for start, end in lines:
        if not np.isnan([start, end]).any():
            draw.line([*start[::-1], *end[::-1]], fill=1)
    skeleton = np.asarray(canvas)
    if not skeleton.any():
        return skeleton
    radius = max(MIN_MASK_RADIUS * size[0], MASK_RADIUS * float(np.nan_to_num(np.hypot(*torso))))
    return distance_transform_edt(~skeleton) <= radius
