"""Advice instead of bad pictures: what is wrong with a person's photo, and what to do about it.

The limits let the photos pass that the published pair lists use: of 100 with their published joints, less than one has
advice as it is, one or two when framed anew, most of them for a head or legs that the photo lacks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.keypoints import JOINTS, TORSO
from inference.framing import Frame, can_be_framed, joint_numbers

FEWEST = 6  # of the 18 joints
BYSTANDER = 0.5  # people of less than this height, in that of the chosen one, are background
OUTSIDE = 0.1  # of the photo: joints this far outside it are wrong, or of a person who is cut off
REACH = {"top": 0.2, "bottom": 0.2, "left": 0.25, "right": 0.25}  # of the frame that may lie outside the photo
LARGEST_SCALE = 1.6  # enlargement
STEEPEST = 60.0  # degrees of neck to hips from upright
HEAD_ROOM = 0.35  # neck to the photo's top in torsos: with less, and no joint of the head known, the head is cut off


class Advice(NamedTuple):
    """One line: what, where and what to do. `fatal`: there is nothing to go on with, so none can insist."""

    text: str
    fatal: bool = False


def advise(
    people: Sequence[np.ndarray], photo_size: tuple[int, int] | None, frame: Frame | None, what: str
) -> list[Advice]:
    """What speaks against a photo, worst first; empty where nothing does.

    `people`: (18,2) in photo pixels of everyone found, the chosen one first. `photo_size` (H, W) and the chosen one's
    `frame` are None where only the pose counts (a target, a keypoint file). `what` names the photo, and begins each
    line.
    """
    known = [np.asarray(person, float) for person in people if not np.isnan(person).all()]
    if not known:
        return [Advice(f"{what}: no person found; use a photo that shows one from head to hips at least", True)]
    chosen = known[0]
    if not can_be_framed(chosen):
        joints = ", ".join(name for name, joint in zip(JOINTS, chosen) if not np.isnan(joint).any())
        return [Advice(f"{what}: nothing but {joints} found of the person; shoulders and hips must be seen", True)]
    texts = [*_missing(chosen), *_turned(chosen), *_several(known)]
    if photo_size is not None:
        texts += _outside(chosen, photo_size)
    if photo_size is not None and frame is not None:
        texts += [*_cut_off(photo_size, frame), *_small(frame)]
    return [Advice(f"{what}: {text}") for text in texts]


def _missing(person: np.ndarray) -> list[str]:
    torso = [JOINTS[number] for number in TORSO if np.isnan(person[number]).any()]
    if torso:
        return [f"{' and '.join(torso)} not found; use a photo that shows both shoulders and both hips"]
    count = int((~np.isnan(person).any(axis=1)).sum())
    return [f"only {count} of 18 joints found; use a clearer photo of the person"] if count < FEWEST else []


def _turned(person: np.ndarray) -> list[str]:
    down, across = person[TORSO[2:]].mean(axis=0) - person[TORSO[:2]].mean(axis=0)
    angle = np.degrees(np.arctan2(abs(across), down))
    if not angle > STEEPEST:  # or NaN, where hips or shoulders are missing
        return []
    how = "upside down" if angle > 180 - STEEPEST else "sideways"
    return [f"the person is {how}; turn the photo upright (its rotation mark may be lost), or use another pose"]


def _several(people: Sequence[np.ndarray]) -> list[str]:
    heights = [np.nanmax(person[:, 0]) - np.nanmin(person[:, 0]) for person in people]
    others = [person for person, height in zip(people[1:], heights[1:]) if height >= BYSTANDER * heights[0]]
    if not others:
        return []
    x = [np.nanmean(person[:, 1]) for person in (people[0], *others)]
    place = f"number {int(np.argsort(np.argsort(x))[0]) + 1} from the left"
    return [f"{len(x)} people found, and the one taken is {place}; crop the photo to the one you mean"]


def _outside(person: np.ndarray, photo_size: tuple[int, int]) -> list[str]:
    size = np.array(photo_size)
    wrong = ((person < -OUTSIDE * size) | (person > (1 + OUTSIDE) * size)).any(axis=1)
    if wrong.any():
        names = ", ".join(name for name, bad in zip(JOINTS, wrong) if bad)
        return [f"{names} outside the photo of {size[1]} x {size[0]} pixels; check that the keypoints belong to it"]
    neck, hips = person[1, 0], person[TORSO[2:], 0].mean()
    if np.isnan(person[joint_numbers("nose", "eye", "ear")]).all() and neck < HEAD_ROOM * (hips - neck):
        return ["the person's head is cut off at the top of the photo; use a photo with the whole head"]
    return []


def _cut_off(photo_size: tuple[int, int], frame: Frame) -> list[str]:
    (height, width), high, wide = photo_size, *(length / frame.scale for length in frame.size)
    beyond = {
        "top": -frame.top / high,
        "bottom": (frame.top + high - height) / high,
        "left": -frame.left / wide,
        "right": (frame.left + wide - width) / wide,
    }
    return [
        f"the person is cut off: {part:.0%} of the picture would lie beyond the photo's {side}, where nothing is "
        "known; use a photo with more around the person"
        for side, part in beyond.items()
        if part > REACH[side]
    ]


def _small(frame: Frame) -> list[str]:
    if frame.scale <= LARGEST_SCALE:
        return []
    height, width = frame.size
    return [
        f"the part of the photo with the person has only {width / frame.scale:.0f} x {height / frame.scale:.0f} pixels "
        f"for a picture of {width} x {height}; use a larger photo"
    ]
