"""Draws skeletons, which show a pose to a reader; the networks get heat maps instead."""

import math
from collections.abc import Sequence

from PIL import Image, ImageColor, ImageDraw

# Pairs of joints (data/keypoints.py numbers them) that a line connects.
LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
NUM_JOINTS = 18
LIMB_COLORS = [ImageColor.getrgb(f"hsv({360 * i / len(LIMBS)}, 100%, 100%)") for i in range(len(LIMBS))]
JOINT_COLORS = [ImageColor.getrgb(f"hsv({360 * i / NUM_JOINTS}, 100%, 100%)") for i in range(NUM_JOINTS)]


def draw_skeleton(
    keypoints: Sequence[Sequence[float]], size: tuple[int, int], background: Image.Image | None = None
) -> Image.Image:
    """Draw keypoints (18,2) of (y, x) in pixels, NaN = missing, and their limbs.

    Returns an RGB image of `size` (H, W): black, or a copy of `background` (of that size) below the skeleton.
    """
    image = Image.new("RGB", size[::-1]) if background is None else background.copy()
    draw = ImageDraw.Draw(image)
    width = max(1, size[0] // 64)
    joints = [None if math.isnan(y) or math.isnan(x) else (x, y) for y, x in keypoints]
    for (start, end), color in zip(LIMBS, LIMB_COLORS):
        if joints[start] and joints[end]:
            draw.line([joints[start], joints[end]], fill=color, width=width)
    for joint, color in zip(joints, JOINT_COLORS):
        if joint:
            x, y = joint
            draw.ellipse((x - width, y - width, x + width, y + width), fill=color)
    return image
