"""Skeletons for people to look at; the networks see heat maps instead."""

import colorsys
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

# Pairs of joints that a skeleton joins with a line.
LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip


def draw_skeleton(
    keypoints: Sequence[Sequence[float]], size: tuple[int, int], background: Image.Image | None = None,
) -> Image.Image:  # fmt: skip
    """Keypoints (18, 2) of (y, x), NaN = missing, on black or on `background`, `size` is (H, W)."""
    picture = Image.new("RGB", size[::-1]) if background is None else background.copy()
    draw = ImageDraw.Draw(picture)
    width = max(1, size[0] // 64)
    points = [None if math.isnan(y) or math.isnan(x) else (x, y) for y, x in keypoints]
    for number, (a, b) in enumerate(LIMBS):
        if points[a] and points[b]:
            draw.line([points[a], points[b]], fill=_color(number / len(LIMBS)), width=width)
    for number, point in enumerate(points):
        if point:
            x, y = point
            draw.ellipse((x - width, y - width, x + width, y + width), fill=_color(number / len(points)))
    return picture


def _color(hue: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
