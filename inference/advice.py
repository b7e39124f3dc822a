"""Advice instead of bad images: what is wrong with a user's photo or pose, and what to do about it.

The limits let nearly all photos of the published pair lists pass. With their published keypoints, fewer than 1 in 100
gets advice; framed anew, 1 or 2 in 100, mostly because a head or legs are cut off.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.keypoints import HIPS, JOINTS, NECK, NUM_JOINTS, SHOULDERS, TORSO
from inference.framing import Frame, can_be_framed, joint_indices
from inference.people import Person, known_joints, prominence

MIN_JOINTS = 6  # known joints of a usable pose
RIVAL = 0.5  # fraction of the chosen person's prominence: others below it are background, or phantoms
OUTSIDE = 0.1  # fraction of the photo's height or width: joints further outside are wrong or of another photo
MAX_OUTSIDE = {"top": 0.2, "bottom": 0.2, "left": 0.25, "right": 0.25}  # fraction of the frame beyond that side
MAX_SCALE = 1.6  # frame pixels per photo pixel: a photo enlarged more than this is blurred
MAX_TILT = 60.0  # degrees between the line from shoulders to hips and the vertical
HEAD_ROOM = 0.35  # torso lengths above the neck: with less, and no head joint known, the photo cuts the head off


class Advice(NamedTuple):
    """One line that says what is wrong, where, and what to do. `fatal`: there is no person that --force could use."""

    text: str
    fatal: bool = False


def advise(
    people: Sequence[Person], photo_size: tuple[int, int] | None, frame: Frame | None, what: str
) -> list[Advice]:
    """Everything that is wrong with a photo or pose, worst first; empty if nothing is.

    people: everyone found, the chosen person first.
    photo_size, frame: (H, W) of the photo, and the frame of the chosen person; None for a target, where only the pose
        counts.
    what: the name of the photo, with which each line begins.
    """
    if not people:
        return [Advice(f"{what}: no person found; use a photo that shows one from head to hips at least", True)]
    pose = np.asarray(people[0].keypoints, float)
    if not can_be_framed(pose):
        if not np.isnan(pose[TORSO]).any():
            text = "neck and hips are less than a pixel apart; are the keypoints fractions instead of pixels?"
            return [Advice(f"{what}: {text}", True)]
        joints = ", ".join(name for name, joint in zip(JOINTS, pose) if not np.isnan(joint).any())
        return [Advice(f"{what}: only {joints} found of the person; shoulders and hips must be visible", True)]
    problems = [*_pose_problems(pose), *_rival_problems(people)]
    if photo_size is not None:
        problems += _photo_problems(pose, photo_size)
        if frame is not None:
            problems += _frame_problems(photo_size, frame)
    return [Advice(f"{what}: {problem}") for problem in problems]


def is_fatal(advice: Sequence[Advice]) -> bool:
    return any(one.fatal for one in advice)


def _pose_problems(pose: np.ndarray) -> Iterator[str]:
    count = known_joints(Person(pose))
    if torso := [JOINTS[number] for number in TORSO if np.isnan(pose[number]).any()]:
        yield f"{' and '.join(torso)} not found; use a photo that shows both shoulders and both hips"
    elif count < MIN_JOINTS:
        yield f"only {count} of {NUM_JOINTS} joints found; use a clearer photo of the person"
    down, across = pose[HIPS].mean(axis=0) - pose[SHOULDERS].mean(axis=0)  # from the shoulders to the hips
    angle = np.degrees(np.arctan2(abs(across), down))
    if angle > MAX_TILT:  # False for the NaN of missing hips or shoulders
        how = "upside down" if angle > 180 - MAX_TILT else "sideways"
        yield f"the person is {how}; turn the photo upright (its EXIF orientation may be lost), or use another pose"


def _rival_problems(people: Sequence[Person]) -> Iterator[str]:
    rivals = [person for person in people if prominence(person) >= RIVAL * prominence(people[0])]
    x = [np.nanmean(person.keypoints[:, 1]) for person in rivals]
    if len(x) > 1:
        number = 1 + sum(other < x[0] for other in x)
        taken = f"the one taken is number {number} from the left; crop the photo to the one you mean"
        yield f"{len(x)} people found, and {taken}"


def _photo_problems(pose: np.ndarray, photo_size: tuple[int, int]) -> Iterator[str]:
    size = np.array(photo_size)
    outside = ((pose < -OUTSIDE * size) | (pose > (1 + OUTSIDE) * size)).any(axis=1)
    neck, hips = pose[NECK, 0], pose[HIPS, 0].mean()
    if outside.any():
        names = ", ".join(name for name, wrong in zip(JOINTS, outside) if wrong)
        yield f"{names} outside the photo of {size[1]} x {size[0]} pixels; check that the keypoints belong to it"
    elif np.isnan(pose[joint_indices("nose", "eye", "ear")]).all() and neck < HEAD_ROOM * (hips - neck):
        yield "the person's head is cut off at the top of the photo; use a photo with the whole head"


def _frame_problems(photo_size: tuple[int, int], frame: Frame) -> Iterator[str]:
    (height, width), (view_height, view_width) = photo_size, (length / frame.scale for length in frame.size)
    outside = {
        "top": -frame.top / view_height,
        "bottom": (frame.top + view_height - height) / view_height,
        "left": -frame.left / view_width,
        "right": (frame.left + view_width - width) / view_width,
    }
    for side, fraction in outside.items():
        if fraction > MAX_OUTSIDE[side]:
            beyond = f"{fraction:.0%} of the image would lie beyond the photo's {side}, where nothing is known"
            yield f"the person is cut off: {beyond}; use a photo with more around the person"
    if frame.scale > MAX_SCALE:
        part = f"the part of the photo with the person has only {view_width:.0f} x {view_height:.0f} pixels"
        yield f"{part} for an image of {frame.size[1]} x {frame.size[0]}; use a larger photo"
