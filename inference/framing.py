"""Framing a person as a data set does: a part of the photo, never distorted, continued where the photo ends.

How DeepFashion and Market-1501 frame people is measured on PATN's lists (STYLES). A user's person is put where their
people stand, by the lowest joints that are known: a whole body like their whole bodies, a portrait like theirs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from data.keypoints import JOINTS
from util.errors import UserError


def joint_numbers(*words: str) -> list[int]:
    """Of all joints with one of `words` in their name: 'knee' gives both knees."""
    return [number for number, name in enumerate(JOINTS) if set(words) & set(name.split())]


class Framing(NamedTuple):
    """Where a person stands in a picture, as parts of its height: the neck, the lowest joints, and the length from
    one to the other over the joints between."""

    neck: float
    lowest: float
    length: float


# Medians of the published rows with shoulders and hips, by the lowest joints known: DeepFashion test (956, 482 and
# 1,826 rows) and Market-1501 train (10,811, 904 and 401). The lengths vary by 2.7, 3.5 and 6.7 % (median) there, and
# by 4.5, 8.3 and 10.3 %; across, the mean of all joints is in the middle, give or take 5 of 176 and 2 of 64 pixels.
STYLES = {
    "fashion": {
        "ankle": Framing(0.203, 0.879, 0.679),
        "knee": Framing(0.277, 0.973, 0.695),
        "hip": Framing(0.309, 0.777, 0.475),
    },
    "market": {
        "ankle": Framing(0.195, 0.883, 0.707),
        "knee": Framing(0.203, 0.812, 0.62),
        "hip": Framing(0.195, 0.508, 0.316),
    },
}
LEGS = ("hip", "knee", "ankle")  # from the top
HEAD_TO_TORSO = 2.4  # neck to hips, in distances from the middle of the known head joints to the neck; both sets
MARGIN = 0.02  # of height and width: joints are kept this far from the border
FADE = 24  # outside the photo the border fades to its median color over 1/24 of the height
FOLLOW = 12.0  # frames (standard deviation) over which the view of a sequence follows; half a second of video


class Frame(NamedTuple):
    """A picture of `size` (H, W) in a photo: `scale` picture pixels per photo pixel, from the corner (`top`, `left`)
    in photo pixels. It may reach outside the photo."""

    scale: float
    top: float
    left: float
    size: tuple[int, int]


def as_it_is(size: tuple[int, int]) -> Frame:
    """For a photo that has the data set's size already: `crop` gives it back, and joints stay where they are."""
    return Frame(1.0, 0.0, 0.0, size)


def to_frame(keypoints: np.ndarray, frame: Frame) -> np.ndarray:
    """(..., 18, 2) of (y, x) in photo pixels -> float32 in pixels of the framed picture; NaN stays NaN."""
    return ((keypoints - np.array([frame.top, frame.left])) * frame.scale).astype(np.float32)


def from_frame(keypoints: np.ndarray, frame: Frame) -> np.ndarray:
    """The way back of `to_frame`."""
    return (keypoints / frame.scale + np.array([frame.top, frame.left])).astype(np.float32)


def can_be_framed(keypoints: np.ndarray) -> bool:
    """Whether the neck (or a shoulder) of (18,2) is known, and hips or head to tell the size from: a pixel at least."""
    neck, *_, lowest = _chain(np.asarray(keypoints, float)[None], "hip")
    return bool(np.linalg.norm(lowest - neck) >= 1)


def frame_person(keypoints: np.ndarray, size: tuple[int, int], style: str) -> Frame:
    """The frame of `size` (H, W) around (18,2) in photo pixels, as data set `style` has it. An unknown style is
    framed like fashion. Raises UserError where `can_be_framed` is false."""
    return frame_people([keypoints], size, style)[0]


def frame_people(
    people: Sequence[np.ndarray], size: tuple[int, int], style: str, follow: float = FOLLOW
) -> list[Frame]:
    """A frame for each (18,2) of a sequence of one person: all of one scale, their centers a smooth line.

    Poses that cannot be framed take the view of those around them; UserError where no pose can be. The centers are
    averaged by a Gaussian of `follow` frames, which leaves a steady movement as it is.
    """
    track = np.asarray(people, float)
    usable = np.array([can_be_framed(pose) for pose in track], bool)
    if not usable.any():
        raise UserError("no person that can be framed: a neck or shoulder, and hips or head, must be known")
    known = track[usable]
    part = _lowest_part(known)
    framing = STYLES.get(style, STYLES["fashion"])[part]
    chain = _chain(known, part)
    length = np.median(np.linalg.norm(np.diff(chain, axis=0), axis=-1).sum(axis=0))
    low, high = np.nanmin(known, axis=1), np.nanmax(known, axis=1)  # (T,2)
    room = np.array(size) * (1 - 2 * MARGIN)
    fitting = np.percentile(room / np.maximum(high - low, 1e-6), 5, axis=0)  # all but a few stray poses fit
    scale = float(min(framing.length * size[0] / length, *fitting))

    middle = (framing.neck + framing.lowest - 1) / 2 * size[0] / scale  # of neck and lowest, below the center
    center = np.stack([chain[[0, -1], :, 0].mean(axis=0) - middle, np.nanmean(known[..., 1], axis=1)], axis=1)
    nearest, furthest = high - room / 2 / scale, low + room / 2 / scale
    center = np.where(nearest > furthest, (low + high) / 2, center.clip(nearest, furthest))
    frames = np.arange(len(track))
    center = np.stack([np.interp(frames, frames[usable], line) for line in center.T], axis=1)
    corners = _smooth(center, follow) - np.array(size) / 2 / scale
    return [Frame(scale, float(top), float(left), tuple(size)) for top, left in corners]


def crop(photo: Image.Image, frame: Frame) -> Image.Image:
    """What `frame` shows of an RGB photo, exactly `frame.size`. Raises UserError where that is nothing.

    Bicubic, averaged over the pixels where it shrinks. Outside the photo its border is continued, see `_continue`.
    """
    if frame == as_it_is((photo.height, photo.width)):
        return photo
    spans, box = [], []
    for corner, wanted, there in zip((frame.left, frame.top), frame.size[::-1], photo.size):
        first = int(np.ceil(np.clip(-corner * frame.scale, 0, wanted)))
        last = int(np.floor(np.clip((there - corner) * frame.scale, 0, wanted)))
        if first >= last:
            raise UserError("the person lies outside the photo; check that the keypoints belong to it")
        spans.append((first, last))
        box.append((max(0, corner + first / frame.scale), min(there, corner + last / frame.scale)))
    (left, right), (top, bottom) = box
    inside = tuple(last - first for first, last in spans)
    part = photo.resize(inside, Image.Resampling.BICUBIC, (left, top, right, bottom), reducing_gap=3.0)
    return Image.fromarray(_continue(np.asarray(part), spans[::-1], frame.size))


def _continue(part: np.ndarray, spans: Sequence[tuple[int, int]], size: tuple[int, int]) -> np.ndarray:
    """uint8 (h,w,3) at the rows and columns `spans` of a picture (H,W,3), with its border continued around it."""
    picture = part.astype(np.float32)
    for axis, ((first, last), wanted) in enumerate(zip(spans, size)):
        lines = np.moveaxis(picture, axis, 0)
        before, after = _fade(lines[:3], first, size[0])[::-1], _fade(lines[-3:], wanted - last, size[0])
        picture = np.moveaxis(np.concatenate([before, lines, after]), 0, axis)
    return picture.round().astype(np.uint8)


def _fade(border: np.ndarray, number: int, height: int) -> np.ndarray:
    """`number` lines that go from the mean of the `border` lines (3,L,3) to their median color.

    A backdrop goes on without a seam; hair or legs at the border (the smaller part of it) leave no long streaks.
    """
    weight = np.exp(-np.arange(1, number + 1) * FADE / height)[:, None, None]
    return weight * border.mean(axis=0) + (1 - weight) * np.median(border, axis=(0, 1))


def _smooth(center: np.ndarray, follow: float) -> np.ndarray:
    """(T,2) averaged over time; mirrored through its end points, so that a straight line stays one up to its ends."""
    ends = int(4 * follow) + 1
    longer = np.pad(center, ((ends, ends), (0, 0)), "reflect", reflect_type="odd")
    return gaussian_filter1d(longer, follow, axis=0)[ends:-ends]


def _lowest_part(track: np.ndarray) -> str:
    """Of (T,18,2): ankles or knees where at least half of the poses have one, else hips."""
    known = ~np.isnan(track[..., 0])
    return next((part for part in ("ankle", "knee") if known[:, joint_numbers(part)].any(axis=1).mean() >= 0.5), "hip")


def _chain(track: np.ndarray, part: str) -> np.ndarray:
    """(T,18,2) -> (N,T,2): the neck and the middles of hips, knees and ankles, down to `part`.

    A missing neck is the middle of the shoulders; missing hips are HEAD_TO_TORSO below the neck, away from the head;
    missing knees or ankles are where the part above them is. NaN where all that fails.
    """
    neck, shoulders, head = _middle(track, "neck"), _middle(track, "shoulder"), _middle(track, "nose", "eye", "ear")
    chain = [np.where(np.isnan(neck), shoulders, neck)]
    other = chain[0] + HEAD_TO_TORSO * (chain[0] - head)
    for name in LEGS[: LEGS.index(part) + 1]:
        middle = _middle(track, name)
        other = np.where(np.isnan(middle), other, middle)
        chain.append(other)
    return np.stack(chain)


def _middle(track: np.ndarray, *words: str) -> np.ndarray:
    """(T,18,2) -> (T,2), the mean of the known joints of those names; NaN where none is."""
    joints = track[:, joint_numbers(*words)]
    known = ~np.isnan(joints)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(joints).sum(axis=1) / known.sum(axis=1)
