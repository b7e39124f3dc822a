"""Framing: photos are cropped around a person in the way that the data set frames its people.

Where the people of DeepFashion and Market-1501 stand in their images was measured on PATN's keypoints (PLACEMENTS). A
user's person is put in the same place, judged by the lowest joints that are known: a whole body like the data set's
whole bodies, a portrait like its portraits. The crop is never distorted; outside the photo, its border is continued.

Shapes: a `track` is a sequence of T poses, (T,18,2); its `chain` (N,T,2) has N points of the body, from the neck down.
All are (y, x) in photo pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from data.keypoints import JOINTS
from util.errors import UserError


class Placement(NamedTuple):
    """Where a person stands in an image, as fractions of the image's height."""

    neck: float  # y of the neck
    lowest: float  # y of the lowest known joints: the middle of hips, knees or ankles
    length: float  # along the body from the neck to the lowest joints, over the joints between


# Medians of the published keypoints with shoulders and hips, by the lowest joints known: DeepFashion test (956, 482 and
# 1,826 rows) and Market-1501 train (10,811, 904 and 401 rows). The median deviation of the lengths is 2.7, 3.5 and
# 6.7 % in DeepFashion and 4.5, 8.3 and 10.3 % in Market-1501. Horizontally the mean of all joints lies in the image's
# middle, within 5 of 176 and 2 of 64 pixels.
PLACEMENTS = {
    "fashion": {
        "ankle": Placement(0.203, 0.879, 0.679),
        "knee": Placement(0.277, 0.973, 0.695),
        "hip": Placement(0.309, 0.777, 0.475),
    },
    "market": {
        "ankle": Placement(0.195, 0.883, 0.707),
        "knee": Placement(0.203, 0.812, 0.62),
        "hip": Placement(0.195, 0.508, 0.316),
    },
}
LEGS = ("hip", "knee", "ankle")  # from top to bottom
HEAD_TO_TORSO = 2.4  # distance from neck to hips, divided by that from neck to head joints, in both data sets
MARGIN = 0.02  # fraction of height and width: joints are kept at least this far from the border
FITTING_POSES = 95  # percentage of a sequence's poses that must fit into the view; the others may be wrong estimates
BORDER_LINES = 3  # rows or columns at the photo's edge from which the continuation takes its colors
FADE_LENGTH = 1 / 24  # fraction of the frame's height: outside the photo, border details fade to 1/e over this length


class Frame(NamedTuple):
    """A crop of a photo, which may reach outside the photo."""

    scale: float  # frame pixels per photo pixel
    top: float  # photo pixels
    left: float  # photo pixels
    size: tuple[int, int]  # (H, W) in frame pixels


def identity_frame(size: tuple[int, int]) -> Frame:
    """The frame of a photo that has the data set's size already: `crop` returns it, keypoints do not change."""
    return Frame(1.0, 0.0, 0.0, size)


def to_frame(keypoints: np.ndarray, frame: Frame) -> np.ndarray:
    """(..., 18, 2) of (y, x) in photo pixels -> float32 in frame pixels; NaN stays NaN."""
    return ((keypoints - np.array([frame.top, frame.left])) * frame.scale).astype(np.float32)


def joint_indices(*words: str) -> list[int]:
    """Indices of the joints that have one of `words` in their name: 'knee' gives both knees."""
    return [number for number, name in enumerate(JOINTS) if set(words) & set(name.split())]


def can_be_framed(keypoints: np.ndarray) -> bool:
    """Whether (18,2) has neck or shoulder, and hips or head, a pixel apart at least: they determine place and scale."""
    neck, hips = _body_chain(np.asarray(keypoints, float)[None], "hip")
    return bool(np.linalg.norm(hips - neck) >= 1)


def frame_person(keypoints: np.ndarray, size: tuple[int, int], dataset_mode: str) -> Frame:
    """The frame of `size` (H, W) around one person, (18,2) in photo pixels; see `frame_people`."""
    return frame_people([keypoints], size, dataset_mode)[0]


def frame_people(
    poses: Sequence[np.ndarray], size: tuple[int, int], dataset_mode: str, sigma: float = 1.0
) -> list[Frame]:
    """A frame of `size` (H, W) for each pose of a sequence of one person, as that data set would frame it.

    poses: (18,2) each, in photo pixels; `can_be_framed` is true of each. A data set that PLACEMENTS does not have is
        framed like 'fashion'.
    All frames have one scale. Their centers follow the person, averaged over time by a Gaussian with a standard
    deviation of `sigma` poses, which does not change a steady movement.
    """
    track = np.asarray(poses, float)
    shown = (part for part in ("ankle", "knee") if np.isnan(_middle(track, part)[:, 0]).mean() <= 0.5)
    lowest = next(shown, "hip")  # the lowest part that at least half of the poses have
    placement = PLACEMENTS.get(dataset_mode, PLACEMENTS["fashion"])[lowest]
    chain = _body_chain(track, lowest)
    scale = _common_scale(track, chain, placement, size)
    view = np.array(size) / scale  # (H, W) in photo pixels
    centers = _view_centers(track, chain, placement, view)
    padding = int(4 * sigma) + 1
    longer = np.pad(centers, ((padding, padding), (0, 0)), "reflect", reflect_type="odd")  # continues straight lines
    corners = gaussian_filter1d(longer, sigma, axis=0)[padding:-padding] - view / 2
    return [Frame(scale, float(top), float(left), tuple(size)) for top, left in corners]


def _common_scale(track: np.ndarray, chain: np.ndarray, placement: Placement, size: tuple[int, int]) -> float:
    """Frame pixels per photo pixel: bodies get the placement's length, or less where they would not fit."""
    lengths = np.linalg.norm(np.diff(chain, axis=0), axis=-1).sum(axis=0)  # (T,)
    extents = np.nanmax(track, axis=1) - np.nanmin(track, axis=1)  # (T,2)
    room = np.array(size) * (1 - 2 * MARGIN)
    fitting_scales = np.percentile(room / np.maximum(extents, 1e-6), 100 - FITTING_POSES, axis=0)
    return float(min(placement.length * size[0] / np.median(lengths), *fitting_scales))


def _view_centers(track: np.ndarray, chain: np.ndarray, placement: Placement, view: np.ndarray) -> np.ndarray:
    """(T,2): the center of the view of size `view` (photo pixels) that each pose alone would get.

    Vertically, neck and lowest joints come to their placement; horizontally, the mean of all joints comes to the
    middle. The view is then moved until all joints are inside its margins; a pose too large for that is centered.
    """
    below_center = ((placement.neck + placement.lowest) / 2 - 0.5) * view[0]  # where the middle of the two belongs
    y = chain[[0, -1], :, 0].mean(axis=0) - below_center
    x = np.nanmean(track[..., 1], axis=1)
    low, high = np.nanmin(track, axis=1), np.nanmax(track, axis=1)
    reach = view * (0.5 - MARGIN)
    smallest, largest = high - reach, low + reach
    return np.where(smallest > largest, (low + high) / 2, np.stack([y, x], axis=1).clip(smallest, largest))


def _body_chain(track: np.ndarray, lowest: str) -> np.ndarray:
    """(T,18,2) -> (N,T,2): the neck and the middles of hips, knees and ankles, down to `lowest`.

    A missing neck is replaced by the middle of the shoulders, missing hips by the point HEAD_TO_TORSO below the neck,
    away from the head, and missing knees or ankles by the part above them. NaN if nothing of that is known.
    """
    neck, shoulders, head = _middle(track, "neck"), _middle(track, "shoulder"), _middle(track, "nose", "eye", "ear")
    chain = [np.where(np.isnan(neck), shoulders, neck)]
    fallback = chain[0] + HEAD_TO_TORSO * (chain[0] - head)
    for part in LEGS[: LEGS.index(lowest) + 1]:
        middle = _middle(track, part)
        fallback = np.where(np.isnan(middle), fallback, middle)
        chain.append(fallback)
    return np.stack(chain)


def _middle(track: np.ndarray, *words: str) -> np.ndarray:
    """(T,18,2) -> (T,2): the mean of the known joints that have one of `words` in their name; NaN if none is known."""
    joints = track[:, joint_indices(*words)]
    known = ~np.isnan(joints)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(joints).sum(axis=1) / known.sum(axis=1)


def crop(photo: Image.Image, frame: Frame) -> Image.Image:
    """The part of an RGB photo that `frame` shows, of exactly `frame.size`. Raises UserError if they do not overlap.

    Bicubic resampling, with averaging where the photo shrinks. Outside the photo its border is continued.
    """
    if frame == identity_frame((photo.height, photo.width)):
        return photo
    spans, box = [], []
    for corner, frame_length, photo_length in zip((frame.left, frame.top), frame.size[::-1], photo.size):
        # rounded, so that no line at the photo's border is lost to a rounding error
        first = int(np.ceil(np.clip(round(-corner * frame.scale, 6), 0, frame_length)))
        end = int(np.floor(np.clip(round((photo_length - corner) * frame.scale, 6), 0, frame_length)))
        if first >= end:
            raise UserError("the person lies outside the photo; check that the keypoints belong to it")
        spans.append((first, end))  # the frame's pixels that lie inside the photo
        box.append((max(0, corner + first / frame.scale), min(photo_length, corner + end / frame.scale)))
    (left, right), (top, bottom) = box
    inside_size = tuple(end - first for first, end in spans)
    inside = photo.resize(inside_size, Image.Resampling.BICUBIC, (left, top, right, bottom), reducing_gap=3.0)
    return Image.fromarray(_extend_border(np.asarray(inside), spans[::-1], frame.size))


def _extend_border(inside: np.ndarray, spans: Sequence[tuple[int, int]], size: tuple[int, int]) -> np.ndarray:
    """uint8 (h,w,3) -> (H,W,3) of `size`: `inside` at the row and column `spans`, its border continued around it."""
    pixels = inside.astype(np.float32)
    for axis, ((first, end), length) in enumerate(zip(spans, size)):
        lines = np.moveaxis(pixels, axis, 0)
        before = _fading_lines(lines[:BORDER_LINES], first, size[0])[::-1]
        after = _fading_lines(lines[-BORDER_LINES:], length - end, size[0])
        pixels = np.moveaxis(np.concatenate([before, lines, after]), 0, axis)
    return pixels.round().astype(np.uint8)


def _fading_lines(border: np.ndarray, number: int, height: int) -> np.ndarray:
    """`number` lines that fade from the mean of the `border` lines (3,L,3) to their median color.

    So a backdrop continues without a seam, and hair or legs, which fill less than half of the border, leave no streaks.
    """
    weight = np.exp(-np.arange(1, number + 1) / (FADE_LENGTH * height))[:, None, None]
    return weight * border.mean(axis=0) + (1 - weight) * np.median(border, axis=(0, 1))
