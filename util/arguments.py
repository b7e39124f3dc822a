"""argparse types of numbers: a bad value becomes argparse's one-line error and exit status 2."""

import argparse
import math
from collections.abc import Callable

_KINDS = {int: "a whole number", float: "a number"}


def number(kind: Callable[[str], float], low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a finite number of `kind` (int or float) within [low, high]."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or abs(value) == math.inf:
            bounds = f" from {low} to {high}" if high < math.inf else f" of at least {low}" if low > -math.inf else ""
            raise argparse.ArgumentTypeError(f"'{text}' is not {_KINDS[kind]}{bounds}")
        return value

    return parse


positive_int = number(int, low=1)
count = number(int, low=0)
weight = number(float, low=0)
