"""Draws skeletons for people to look at. (The networks see heat maps instead.)"""

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

# Pairs of joints (data/keypoints.py numbers them) that a line connects.
LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip


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
    for number, (start, end) in enumerate(LIMBS):
        if joints[start] and joints[end]:
            draw.line([joints[start], joints[end]], fill=_color(number / len(LIMBS)), width=width)
    for number, joint in enumerate(joints):
        if joint:
            x, y = joint
            draw.ellipse((x - width, y - width, x + width, y + width), fill=_color(number / len(joints)))
    return image


def _color(hue: float) -> tuple[int, int, int]:
    """The pure color of `hue` (0..1) as RGB 0..255."""
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
