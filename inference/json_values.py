"""Values in the JSON of other programs, which may be of any kind: each is checked before it is used.

All functions but `short` raise ValueError with a short message that says what is wrong.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.pairs import MAX_COORDINATE
from inference.photos import Size

_shortener = reprlib.Repr()  # str() would fail for deeply nested lists, and be slow for large ones
_shortener.maxlevel, _shortener.maxother, _shortener.maxstring = 3, 40, 40


def short(value: Any) -> str:
    """A JSON value as one line of at most 60 characters."""
    if isinstance(value, str) and (line := " ".join(value[:60].split())).isprintable():
        return line
    return _shortener.repr(value)[:60]


def field(container: Any, key: str, kind: Any) -> Any:
    """`container[key]`, an instance of `kind`."""
    if not isinstance(container, dict) or not isinstance(container.get(key), kind):
        raise ValueError(f"no {key}, or one of another type than expected, in {short(container)}")
    return container[key]


def to_numbers(values: Sequence[Any]) -> np.ndarray:
    """A list of numbers between -MAX_COORDINATE and MAX_COORDINATE -> float64 array."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_COORDINATE:
            raise ValueError(f"{_shortener.repr(value)[:60]} is not a number within ±{MAX_COORDINATE:,.0f}")
    return np.array(values, float)


def to_points(values: Any, confidence: Any = None) -> np.ndarray:
    """A list of [x, y] or [x, y, confidence], null for a missing joint -> (K,3) of x, y, confidence.

    `confidence` may be a list of K numbers. A joint without one gets 1; a joint at exactly 0, 0 gets 0.
    """
    points = [[0, 0] if value is None else value for value in values] if isinstance(values, list) else None
    if points is None or not all(isinstance(point, list) and len(point) in (2, 3) for point in points):
        raise ValueError(f"expected a list of [x, y], got {short(values)}")
    rows = to_numbers([number for point in points for number in [*point, 1][:3]]).reshape(-1, 3)
    if confidence is not None:
        if not isinstance(confidence, list) or len(confidence) != len(rows):
            raise ValueError(f"expected one confidence for each of {len(rows)} joints, got {short(confidence)}")
        rows[:, 2] = to_numbers(confidence)
    rows[~rows[:, :2].any(axis=1), 2] = 0
    return rows


def declared_size(container: Any) -> Size | None:
    """(H, W) of the photo if the JSON object states it, else None."""
    for prefix in ("", "image_", "canvas_") if isinstance(container, dict) else ():
        height, width = container.get(f"{prefix}height"), container.get(f"{prefix}width")
        if height and width:
            to_numbers((height, width))
            if min(height, width) < 1:
                raise ValueError(f"{prefix}height {height} and {prefix}width {width} are not a size")
            return height, width
    return None
