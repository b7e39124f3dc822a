"""Poses over time: faults repaired, gaps filled, noise smoothed, poses put between; and the flicker of a result.

A track is (T,18,2) of (y, x) in pixels, one pose a frame at equal steps of time, NaN = missing. No function changes
its argument; each returns float64.
"""

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from data.keypoints import JOINTS
from util.draw_pose import LIMBS

GAP = 0.4  # seconds that `clean` fills: a limb hidden behind the body for part of a step
WIDTH = 0.1  # seconds, the standard deviation of the smoothing: see `clean`
JUMP = 0.06  # a joint that leaps by more than this part of the person's extent, and back, was misplaced: 10 cm
NECK, HIPS = JOINTS.index("neck"), [JOINTS.index("right hip"), JOINTS.index("left hip")]
TWINS = [(JOINTS.index(name), JOINTS.index(name.replace("right", "left"))) for name in JOINTS if "right" in name]


def clean(track: np.ndarray, fps: float, gap: float = GAP, width: float = WIDTH) -> np.ndarray:
    """`repair`, `fill_gaps` and `smooth` with times in seconds; 0 switches either of the last two off.

    On drawn walks at 25 frames a second, 220 pixels high, with white noise of 1 or 2 pixels, a width of 0.1 s halves
    the error, which is the most that any width does.
    """
    return smooth(fill_gaps(repair(track), round(gap * fps)), width * fps)


def repair(track: np.ndarray) -> np.ndarray:
    """Single frames that disagree with both neighbors: left and right swapped back, other leaps made missing.

    A joint is expected halfway between its neighbors in time. The two of a pair change places where that brings them
    twice as close to there; a joint is a leap where it lies off by more than JUMP and more than its neighbors lie
    apart. Where a neighbor is missing, nothing is judged.
    """
    track = _known_or_missing(track)
    leap = JUMP * _extent(track)
    middle = track[1:-1]  # a view: what changes here changes in `track`
    expected = (track[:-2] + track[2:]) / 2
    for pair in TWINS:
        found, wanted = middle[:, pair], expected[:, pair]
        as_is, swapped = _distance(found, wanted).sum(1), _distance(found[:, ::-1], wanted).sum(1)
        wrong = (as_is > 2 * leap) & (swapped < as_is / 2)
        middle[:, pair] = np.where(wrong[:, None, None], found[:, ::-1], found)
    off, apart = _distance(middle, (track[:-2] + track[2:]) / 2), _distance(track[:-2], track[2:])
    beside = np.pad(np.nan_to_num(off), ((1, 1), (0, 0)))
    worst = (off >= beside[:-2]) & (off >= beside[2:])  # a leap makes the frames beside it look wrong, half as much
    middle[worst & (off > leap) & (off > apart)] = np.nan
    return track


def fill_gaps(track: np.ndarray, longest: int) -> np.ndarray:
    """Joints missing for at most `longest` frames, known before and after, on straight lines through the gap.

    At the track's two ends, where one side is unknown, the nearest pose is held for at most half as many frames.
    Longer gaps stay missing.
    """
    track = _known_or_missing(track)
    frames = np.arange(len(track))
    for joint in range(track.shape[1]):
        known = np.flatnonzero(~np.isnan(track[:, joint, 0]))
        if not len(known):
            continue
        after = np.searchsorted(known, frames)
        first = np.concatenate([[-np.inf], known])[after]  # the last known frame before each, the next one from it on
        last = np.concatenate([known, [np.inf]])[after]
        at_an_end = np.isinf(last - first)
        length = np.where(at_an_end, 2 * np.minimum(frames - first, last - frames), last - first - 1)
        filled = (length <= longest) & np.isnan(track[:, joint, 0])
        for axis in range(2):
            track[filled, joint, axis] = np.interp(frames[filled], known, track[known, joint, axis])
    return track


def smooth(track: np.ndarray, sigma: float) -> np.ndarray:
    """Each known joint replaced by a parabola over time, fitted to its known neighbors; `sigma` frames, 0 = off.

    Local regression with Gaussian weights, cut at 3 sigma (Cleveland, JASA 1979; on a full track a Savitzky-Golay
    filter): the past and the future count alike, so nothing lags, and a movement of constant speed or acceleration
    passes unchanged, even beside gaps. Of white noise the variance falls to 27 / (32 sqrt(pi) sigma) = 0.48 / sigma
    (sigma of at least 1, away from ends and gaps). Missing joints stay missing; a joint with no more than three known
    frames within reach passes unchanged.
    """
    track = _known_or_missing(track)
    if sigma <= 0 or not len(track):
        return track
    reach = math.ceil(3 * sigma)
    steps = np.arange(-reach, reach + 1) / sigma
    powers = steps ** np.arange(3)[:, None]  # (3,W) over the window's W frames
    weights = np.exp(-(steps**2) / 2)
    padded = np.pad(track, ((reach, reach), (0, 0), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(steps), axis=0)  # (T,18,2,W)
    known = ~np.isnan(windows[:, :, 0])
    moments = np.einsum("tjw,w,pw,qw->tjpq", known, weights, powers, powers, optimize=True)
    sums = np.einsum("tjcw,w,pw->tjpc", np.nan_to_num(windows), weights, powers, optimize=True)
    # the pseudo-inverse, for a parabola is not determined by fewer than three frames
    fitted = (np.linalg.pinv(moments, rcond=1e-9, hermitian=True) @ sums)[:, :, 0]
    return np.where(np.isnan(track), np.nan, fitted)


SHORTEST, WIDEST = 0.5, math.radians(150)  # limbs that shorten or turn more are seen end on: straight lines are better


def interpolate(track: np.ndarray, n: int) -> np.ndarray:
    """Puts `n` poses between successive ones: (T,18,2) -> (T + (T - 1) n,18,2).

    Cubic over time (Catmull-Rom), of each limb's angle and length in the picture from the neck outwards, so that limbs
    do not shrink on the way. Measured on drawn walks, whose poses in between are known: 0.15 to 0.45 of the error of
    straight lines at 8 to 24 poses a cycle (of the joints' own cubic 0.7 to 1), and between two unrelated poses 0.8 of
    it. A joint missing on one side is missing between.
    """
    track = _known_or_missing(track)
    if len(track) < 2:
        return track
    parts = [track[:-1]]
    for number in range(1, n + 1):
        parts.append(_between(track, number / (n + 1)))
    return np.concatenate([np.stack(parts, 1).reshape(-1, *track.shape[1:]), track[-1:]])


def _between(track: np.ndarray, t: float) -> np.ndarray:
    """(T-1,18,2): the poses a part `t` of the way from each pose to the next."""
    poses = _cubic(track, np.diff(track, axis=0), t)
    for parent, child in LIMBS:
        limb = (track[:, child] - track[:, parent]) @ [1j, 1]  # a complex number: x + iy
        length = np.abs(limb)
        turn = np.angle(limb[1:] * limb[:-1].conj())
        turned = _cubic(length, np.diff(length), t) * np.exp(1j * _cubic(np.angle(limb), turn, t))
        neighbors = np.minimum(length[1:], length[:-1]), np.maximum(length[1:], length[:-1])
        steady = (neighbors[0] >= SHORTEST * neighbors[1]) & (np.abs(turn) <= WIDEST)
        straight = _cubic(limb, np.diff(limb), t)
        moved = poses[:, parent] + np.where(steady, turned, straight)[:, None].view(np.float64)[:, ::-1]
        poses[:, child] = np.where(np.isnan(moved), poses[:, child], moved)
    return poses


def _cubic(values: np.ndarray, steps: np.ndarray, t: float) -> np.ndarray:
    """A part `t` along each step of (T,...) values; slopes are means of the steps before and after, if known."""
    before, after = np.concatenate([steps[:1], steps]), np.concatenate([steps, steps[-1:]])
    slope = (np.where(np.isnan(before), after, before) + np.where(np.isnan(after), before, after)) / 2
    return (
        values[:-1] + (3 - 2 * t) * t**2 * steps + t * (1 - t) ** 2 * slope[:-1] - t**2 * (1 - t) * slope[1:]
    )  # fmt: skip


def flicker(frames: np.ndarray, track: np.ndarray) -> float:
    """Mean absolute difference of successive frames outside the person, in 8-bit levels: 0 = a still background.

    frames: uint8 (T,3,H,W); track: (T,18,2) in their pixels. The person of either frame is left out (`person_mask`),
    and so are frames without a pose. NaN where nothing is left to compare.
    """
    size = frames.shape[2:]
    total, pixels = 0.0, 0
    known = ~np.isnan(track).any(axis=2).all(axis=1)
    masks = [person_mask(pose, size) for pose in track]
    for now in range(1, len(frames)):
        outside = ~(masks[now - 1] | masks[now])
        if known[now - 1] and known[now] and outside.any():
            difference = frames[now][:, outside].astype(int) - frames[now - 1][:, outside]
            total += float(np.abs(difference).sum())
            pixels += difference.size
    return total / pixels if pixels else math.nan


def person_mask(pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(18,2) -> bool `size` (H, W): everything near the skeleton, generously, with clothes, hands and feet.

    Near is 0.45 of the length from neck to hips, and at least a ninth of the picture's height.
    """
    torso = pose[NECK] - pose[HIPS].mean(axis=0)
    head, thighs = pose[NECK] + 0.5 * torso, pose[NECK] - 2 * torso  # where no joint, or none in the photo, may be
    lines = [(pose[a], pose[b]) for a, b in LIMBS] + [(joint, joint) for joint in pose] + [(head, thighs)]
    picture = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(picture)
    for start, end in lines:
        if not np.isnan([start, end]).any():
            draw.line([*start[::-1], *end[::-1]], fill=1)
    drawn = np.asarray(picture)
    if not drawn.any():
        return drawn
    radius = max(size[0] / 9, 0.45 * float(np.nan_to_num(np.hypot(*torso))))
    return distance_transform_edt(~drawn) <= radius


def _known_or_missing(track: np.ndarray) -> np.ndarray:
    """A float64 copy in which no joint is half missing."""
    track = np.array(track, np.float64)
    track[np.isnan(track).any(axis=-1)] = np.nan
    return track


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


def _extent(track: np.ndarray) -> float:
    """The person's larger side in pixels, of the median frame; NaN without a known joint."""
    known = track[~np.isnan(track).all(axis=(1, 2))]
    return float(np.median((np.nanmax(known, axis=1) - np.nanmin(known, axis=1)).max(axis=1))) if len(known) else np.nan
