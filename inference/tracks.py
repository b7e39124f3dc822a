"""Poses over time: repair of single frames, filling of gaps, smoothing, and interpolation between poses.

A track is (T,18,2) of (y, x) in pixels: T poses at equal time steps, NaN = missing. Every function returns a new
float64 track and leaves its argument unchanged.
"""

import math

import numpy as np

from data.keypoints import JOINTS
from util.draw_pose import LIMBS

MAX_GAP = 0.4  # seconds that `clean` fills: about as long as the body hides a limb during a step
SMOOTHING = 0.1  # seconds, the standard deviation of the smoothing in `clean`
LEAP = 0.06  # of the longer side of a person's box, about 10 cm: a joint that leaps further and back was misplaced
# A limb that shortens or turns more than this points at the camera: `interpolate` moves its joints on straight lines.
MIN_LENGTH_RATIO = 0.5
MAX_TURN = math.radians(150)
LEFT_RIGHT_PAIRS = [
    (JOINTS.index(name), JOINTS.index(name.replace("right", "left"))) for name in JOINTS if "right" in name
]


def clean(track: np.ndarray, fps: float, max_gap: float = MAX_GAP, smoothing: float = SMOOTHING) -> np.ndarray:
    """`repair`, `fill_gaps` and `smooth`, with times in seconds; 0 switches one of the latter two off.

    On rendered walks at 25 frames per second, 220 pixels high, with noise of 1 or 2 pixels, 0.1 s halves the error.
    """
    return smooth(fill_gaps(repair(track), round(max_gap * fps)), smoothing * fps)


def repair(track: np.ndarray) -> np.ndarray:
    """Correct single frames: swap left and right joints back where they were exchanged, make joints that leap missing.

    A joint is expected halfway between its positions in the frames before and after; without one of these,
    nothing is corrected.
    """
    track = _known_or_missing(track)
    seen = track[~np.isnan(track).all(axis=(1, 2))]  # frames with a person
    if not len(seen):
        return track
    sides = np.nanmax(seen, axis=1) - np.nanmin(seen, axis=1)  # of the box around the known joints
    leap = LEAP * float(np.median(sides.max(axis=1)))
    # A left-right pair is swapped back wherever that halves its distance from the expected position, at least.
    for pair in LEFT_RIGHT_PAIRS:
        found = track[1:-1, pair]
        expected = (track[:-2, pair] + track[2:, pair]) / 2
        distance = _distance(found, expected).sum(axis=1)
        wrong = (distance > 2 * leap) & (_distance(found[:, ::-1], expected).sum(axis=1) < distance / 2)
        track[1:-1, pair] = np.where(wrong[:, None, None], found[:, ::-1], found)
    # A joint becomes missing if it is off by more than `leap` and by more than its neighbors in time are apart. A leap
    # makes the frames before and after it look wrong too, by half as much: only the largest of them counts.
    off = _distance(track[1:-1], (track[:-2] + track[2:]) / 2)
    beside = np.pad(np.nan_to_num(off), ((1, 1), (0, 0)))
    largest = (off >= beside[:-2]) & (off >= beside[2:])
    track[1:-1][largest & (off > leap) & (off > _distance(track[:-2], track[2:]))] = np.nan
    return track


def fill_gaps(track: np.ndarray, longest: int) -> np.ndarray:
    """Fill joints that are missing for at most `longest` frames by linear interpolation over time.

    At the ends of the track, the nearest position is held for at most half as many frames. Longer gaps stay missing.
    """
    track = _known_or_missing(track)
    frames = np.arange(len(track))
    for joint in range(track.shape[1]):
        known = np.flatnonzero(~np.isnan(track[:, joint, 0]))
        if not len(known):
            continue
        next_known = np.searchsorted(known, frames)
        before = np.concatenate([[-np.inf], known])[next_known]
        after = np.concatenate([known, [np.inf]])[next_known]
        at_an_end = np.isinf(after - before)
        length = np.where(at_an_end, 2 * np.minimum(frames - before, after - frames), after - before - 1)
        filled = (length <= longest) & np.isnan(track[:, joint, 0])
        for axis in range(2):
            track[filled, joint, axis] = np.interp(frames[filled], known, track[known, joint, axis])
    return track


def smooth(track: np.ndarray, sigma: float) -> np.ndarray:
    """Replace each known joint by the value of a parabola over time, fitted to its known neighbors.

    sigma: standard deviation, in frames, of the fit's Gaussian weights, which end at 3 sigma; 0 switches it off.

    This is local regression (Cleveland, JASA 1979); without missing joints it is a Savitzky-Golay filter. Nothing lags
    behind, and a movement of constant speed or acceleration passes unchanged, even beside gaps. The variance of white
    noise falls to 27 / (32 sqrt(pi) sigma) = 0.48 / sigma (for sigma of at least 1, away from ends and gaps). Missing
    joints stay missing. A joint passes unchanged if no more than three frames within reach are known.
    """
    track = _known_or_missing(track)
    if sigma <= 0 or not len(track):
        return track
    reach = math.ceil(3 * sigma)
    steps = np.arange(-reach, reach + 1) / sigma
    powers = steps ** np.arange(3)[:, None]  # (3,W): constant, linear and quadratic term in the window's W frames
    weights = np.exp(-(steps**2) / 2)
    padded = np.pad(track, ((reach, reach), (0, 0), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(steps), axis=0)  # (T,18,2,W)
    known = ~np.isnan(windows[:, :, 0])
    # Normal equations of the weighted least squares fit: (3,3) @ coefficients (3,2) = (3,2) for each frame and joint.
    moments = np.einsum("tjw,w,pw,qw->tjpq", known, weights, powers, powers, optimize=True)
    sums = np.einsum("tjcw,w,pw->tjpc", np.nan_to_num(windows), weights, powers, optimize=True)
    # Fewer than three known frames do not determine a parabola: the pseudo-inverse gives the smallest solution.
    fitted = (np.linalg.pinv(moments, rcond=1e-9, hermitian=True) @ sums)[:, :, 0]  # the constant term
    return np.where(np.isnan(track), np.nan, fitted)


def interpolate(track: np.ndarray, n: int) -> np.ndarray:
    """Put `n` poses between successive ones: (T,18,2) -> (T + (T - 1) n,18,2).

    Angle and length of each limb in the image, from the neck outwards, follow a cubic over time (Catmull-Rom), so limbs
    do not shrink on the way. On rendered walks, the error is 0.15 to 0.45 of that of straight lines at 8 to 24 poses
    per cycle, and 0.8 of it between two unrelated poses. A joint missing in one of two poses is missing between.
    """
    track = _known_or_missing(track)
    if len(track) < 2:
        return track
    steps = [track[:-1], *(_poses_between(track, number / (n + 1)) for number in range(1, n + 1))]
    return np.concatenate([np.stack(steps, axis=1).reshape(-1, *track.shape[1:]), track[-1:]])


def _poses_between(track: np.ndarray, t: float) -> np.ndarray:
    """(T-1,18,2): the poses at a fraction `t` of the way from each pose to the next."""
    poses = _cubic(track, np.diff(track, axis=0), t)
    for parent, child in LIMBS:
        limb = (track[:, child] - track[:, parent]) @ [1j, 1]  # (T,) as complex numbers x + iy
        length = np.abs(limb)
        turn = np.angle(limb[1:] * limb[:-1].conj())  # radians from each pose to the next, the shorter way round
        turned = _cubic(length, np.diff(length), t) * np.exp(1j * _cubic(np.angle(limb), turn, t))
        straight = _cubic(limb, np.diff(limb), t)
        shorter, longer = np.minimum(length[1:], length[:-1]), np.maximum(length[1:], length[:-1])
        in_view = (shorter >= MIN_LENGTH_RATIO * longer) & (np.abs(turn) <= MAX_TURN)
        offset = np.where(in_view, turned, straight)[:, None].view(np.float64)[:, ::-1]  # x + iy -> (y, x)
        moved = poses[:, parent] + offset
        poses[:, child] = np.where(np.isnan(moved), poses[:, child], moved)
    return poses


def _cubic(values: np.ndarray, steps: np.ndarray, t: float) -> np.ndarray:
    """(T,...) values and the (T-1,...) steps between them -> the values at a fraction `t` of each step.

    A cubic Hermite spline whose slope at each value is the mean of the known steps before and after it.
    """
    before, after = np.concatenate([steps[:1], steps]), np.concatenate([steps, steps[-1:]])
    slope = (np.where(np.isnan(before), after, before) + np.where(np.isnan(after), before, after)) / 2
    bend = t * (1 - t) ** 2 * slope[:-1] - t**2 * (1 - t) * slope[1:]
    return values[:-1] + (3 - 2 * t) * t**2 * steps + bend


def _known_or_missing(track: np.ndarray) -> np.ndarray:
    """A float64 copy in which a joint with one missing coordinate misses both."""
    track = np.array(track, np.float64)
    track[np.isnan(track).any(axis=-1)] = np.nan
    return track


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)
