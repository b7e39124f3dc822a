"""The people of a photo, and which of several is taken: one rule for keypoint files, estimators and videos.

Programs find phantoms beside a real person: a few joints, far apart and of low confidence, whose box is larger than
that of the real person. Therefore size alone does not decide, see `prominence`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.keypoints import NUM_JOINTS
from util.errors import UserError, summarize


class Person(NamedTuple):
    """One person of a photo."""

    keypoints: np.ndarray  # (18,2) of (y, x) in pixels of the photo, NaN = missing, with at least one known joint
    # 0 to 1: the mean of the known joints, times that of the person, as far as the program states them
    confidence: float = 1.0


PeopleByPhoto = dict[str, list[Person]]  # by the photo's name


def known_joints(person: Person) -> int:
    """The number of known joints."""
    return int((~np.isnan(person.keypoints).any(axis=1)).sum())


def extent(person: Person) -> float:
    """Pixels: the diagonal of the box around the known joints."""
    return math.hypot(*(np.nanmax(person.keypoints, axis=0) - np.nanmin(person.keypoints, axis=0)))


def prominence(person: Person) -> float:
    """The extent, times the number of known joints, times the confidence."""
    return extent(person) * known_joints(person) * person.confidence


ORDERS = {"prominent": prominence, "largest": extent, "first": lambda person: 0}  # the sort is stable: 0 keeps an order
CHOICES = (*ORDERS, "error")  # who is taken if a photo shows several people; "error": nobody


def rank(people: Sequence[Person], choice: str = "prominent") -> list[Person]:
    """The people in one of ORDERS; the first one is taken."""
    return sorted(people, key=ORDERS[choice], reverse=True)


def rank_all(people: PeopleByPhoto, choice: str = "prominent") -> PeopleByPhoto:
    """The people of each photo in the order of `choice`, one of CHOICES. UserError for several people and "error"."""
    several = [f"{name}: {len(found)} people" for name, found in people.items() if len(found) > 1]
    if several and choice == "error":
        raise UserError(f"{len(several)} photos with several people:\n{summarize(several)}")
    return people if choice == "error" else {name: rank(found, choice) for name, found in people.items()}


def first_pose(people: Sequence[Person]) -> np.ndarray:
    """(18,2) of the first person, all NaN if there is nobody."""
    return people[0].keypoints if people else np.full((NUM_JOINTS, 2), np.nan, np.float32)


def describe_choice(people: Sequence[Person]) -> str:
    """Who of several people was taken, the first one, and what the next one is like."""
    return f"{len(people)} people, taken: {_describe(people[0])}; next: {_describe(people[1])}"


def describe_left_out(count: int) -> str:
    """How many people a keypoint file has without any known joint."""
    return f"people left out, because no joint of them is known (only a box, a face or a hand): {count}"


def _describe(person: Person) -> str:
    y, x = np.nanmean(person.keypoints, axis=0)
    size = f"{extent(person):.0f} pixels in extent around x = {x:.0f}, y = {y:.0f}"
    return f"{known_joints(person)} joints of confidence {person.confidence:.2f}, {size}"
