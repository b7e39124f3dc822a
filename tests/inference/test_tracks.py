"""Poses over time against closed forms, numpy's own fits, and rendered walks, whose poses in between are known."""

import math

import numpy as np
import pytest

from data.keypoints import JOINTS
from data.synthetic.body import pose_skeleton
from data.synthetic.people import random_person
from data.synthetic.walk import walking_posture
from inference.tracks import clean, fill_gaps, interpolate, repair, smooth

ANKLES = [JOINTS.index("right ankle"), JOINTS.index("left ankle")]


def walk_track(times: np.ndarray, yaw: float = 60) -> np.ndarray:
    """Exact joints of a synthetic walk, 130 pixels a metre, at `times` in cycles."""
    person = random_person(np.random.default_rng(0))
    return np.stack([pose_skeleton(person, walking_posture(t, yaw)).joints[:, [1, 0]] * 130 + 150 for t in times])


def moving(frames: int, acceleration: float = 0.0) -> np.ndarray:
    """Every joint at its own constant speed, or acceleration."""
    random = np.random.default_rng(0)
    start, speed = random.uniform(20, 200, (2, 1, 18, 2))
    t = np.arange(frames)[:, None, None]
    return start + speed / 50 * t + acceleration * t**2


def error(track: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(track - truth, axis=-1).mean())


def test_fill_gaps_fills_short_gaps_linearly():
    truth = moving(20)
    track = truth.copy()
    track[4:7, 3] = np.nan  # 3 frames
    track[8:12, 5] = np.nan  # 4 frames
    track[9, 6, 0] = np.nan  # half missing is missing
    track[:, 7] = np.nan
    filled = fill_gaps(track, 3)
    np.testing.assert_allclose(filled[:, [3, 6]], truth[:, [3, 6]], atol=1e-9)
    assert np.isnan(filled[8:12, 5]).all()
    assert np.isnan(filled[:, 7]).all()
    np.testing.assert_allclose(fill_gaps(track, 4)[:, 5], truth[:, 5], atol=1e-9)
    assert np.isnan(track[4:7, 3]).all()  # the argument is unchanged
    np.testing.assert_array_equal(fill_gaps(truth, 3), truth)


def test_fill_gaps_holds_ends_for_half_as_long():
    track = moving(12)
    track[:5, 0] = np.nan
    track[-3:, 1] = np.nan
    filled = fill_gaps(track, 4)
    np.testing.assert_array_equal(filled[3:5, 0], track[[5, 5], 0])
    assert np.isnan(filled[:3, 0]).all()
    np.testing.assert_array_equal(filled[-3:-1, 1], track[[-4, -4], 1])
    assert np.isnan(filled[-1, 1]).all()


@pytest.mark.parametrize("acceleration", [0.0, 0.3])
@pytest.mark.parametrize("sigma", [0.8, 1.5, 4.0])
def test_smooth_steady_movement_is_unchanged(acceleration, sigma):
    """At the ends and beside gaps too; what is missing stays missing."""
    track = moving(30, acceleration)
    track[np.random.default_rng(1).random((30, 18)) < 0.2] = np.nan
    np.testing.assert_allclose(smooth(track, sigma), track, atol=1e-6)


def test_smooth_equals_numpys_weighted_fit():
    """Each value is that of numpy's own weighted fit of a parabola, over the known frames within reach."""
    random = np.random.default_rng(2)
    track = random.normal(0, 5, (25, 18, 2))
    track[random.random((25, 18)) < 0.25] = np.nan
    sigma, reach = 1.7, 6
    smoothed = smooth(track, sigma)
    for frame in range(25):
        for joint in range(0, 18, 5):
            near = np.arange(max(frame - reach, 0), min(frame + reach + 1, 25))
            near = near[~np.isnan(track[near, joint, 0])]
            if np.isnan(track[frame, joint, 0]):
                assert np.isnan(smoothed[frame, joint]).all()
            else:
                weights = np.exp(-(((near - frame) / sigma) ** 2) / 4)  # polyfit squares them
                fit = np.polyfit(near - frame, track[near, joint], 2, w=weights)
                np.testing.assert_allclose(smoothed[frame, joint], fit[-1], atol=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_smooth_reduces_noise_by_the_known_factor(sigma):
    noise = np.random.default_rng(3).normal(0, 1, (2000, 18, 2))
    factor = smooth(noise, sigma)[20:-20].var()
    assert factor == pytest.approx(27 / (32 * math.sqrt(math.pi) * sigma), rel=0.03)


def test_smooth_does_not_lag():
    """A step's middle stays where it is, and time reversed gives the result reversed."""
    track = np.zeros((41, 18, 2))
    track[20], track[21:] = 0.5, 1.0
    smoothed = smooth(track, 2.0)
    np.testing.assert_allclose(smoothed[20], 0.5, atol=1e-9)
    random = np.random.default_rng(4).normal(0, 1, (30, 18, 2))
    np.testing.assert_allclose(smooth(random[::-1], 2.0), smooth(random, 2.0)[::-1], atol=1e-9)


def test_clean_switched_off_only_repairs():
    track = np.random.default_rng(5).normal(0, 1, (9, 18, 2))
    np.testing.assert_array_equal(smooth(track, 0), track)
    np.testing.assert_array_equal(clean(track, 25, max_gap=0, smoothing=0), repair(track))


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_clean_short_tracks_are_unchanged(frames):
    track = moving(3)[:frames]
    track[:1, 4] = np.nan
    np.testing.assert_allclose(clean(track, 25, max_gap=0), track, atol=1e-9)
    assert np.isnan(clean(np.full((frames, 18, 2), np.nan), 25)).all()


@pytest.mark.parametrize("yaw", [0, 90])
def test_repair_leaves_a_clean_walk_unchanged(yaw):
    track = walk_track(np.arange(24) / 12, yaw)
    np.testing.assert_array_equal(repair(track), track)


def test_repair_swaps_legs_back_and_removes_leaps():
    truth = walk_track(np.arange(48) / 24, yaw=90)
    apart = np.abs(truth[:, ANKLES[0], 1] - truth[:, ANKLES[1], 1])
    frame = int(apart[:24].argmax())  # of the widest step
    track = truth.copy()
    track[frame, ANKLES] = track[frame, ANKLES[::-1]]
    track[40, 4] += (30, -40)
    track[30, ANKLES[1]] += 4 * (truth[31, ANKLES[1]] - truth[30, ANKLES[1]])  # the way it goes, only too far
    repaired = repair(track)
    assert np.isnan(repaired[40, 4]).all()
    assert np.isnan(repaired[30, ANKLES[1]]).all()
    repaired[40, 4], repaired[30, ANKLES[1]] = truth[40, 4], truth[30, ANKLES[1]]
    np.testing.assert_array_equal(repaired, truth)
    assert not np.array_equal(track, truth)


def test_clean_nearly_halves_the_noise():
    truth = walk_track(np.arange(60) / 27)
    track = truth + np.random.default_rng(6).normal(0, 2, truth.shape)
    track[20:26, ANKLES[0]] = np.nan
    known = ~np.isnan(track)
    cleaned = clean(track, fps=25)
    assert not np.isnan(cleaned).any()
    assert np.abs(cleaned - truth)[known].mean() < 0.55 * np.abs(track - truth)[known].mean()
    assert error(cleaned[20:26, ANKLES[0]], truth[20:26, ANKLES[0]]) < 12  # the foot moved by 100


@pytest.mark.parametrize("n", [0, 1, 4])
def test_interpolate_keeps_poses_and_constant_speed(n):
    track = np.tile(walk_track(np.zeros(1)), (6, 1, 1)) + 4.0 * np.arange(6)[:, None, None]
    between = interpolate(track, n)
    assert between.shape == (6 + 5 * n, 18, 2)
    expected = track[0] + 4 * np.linspace(0, 5, 6 + 5 * n)[:, None, None]
    np.testing.assert_allclose(between, expected, atol=1e-9)
    np.testing.assert_array_equal(interpolate(track[:1], n), track[:1])


def test_interpolate_limb_turns_without_shrinking():
    """Half way of a quarter turn of the forearm, with nothing before or after: on the arc, not on its chord."""
    track = np.tile(walk_track(np.zeros(1)), (2, 1, 1))
    elbow, wrist = track[0, 3], JOINTS.index("right wrist")
    track[:, wrist] = elbow + [(0, 40), (40, 0)]
    middle = interpolate(track, 1)[1]
    np.testing.assert_allclose(middle[wrist], elbow + 40 / math.sqrt(2), atol=1e-9)
    others = [joint for joint in range(18) if joint != wrist]
    np.testing.assert_allclose(middle[others], track[0, others], atol=1e-9)


@pytest.mark.parametrize("yaw", [0, 60, 90])
def test_interpolate_walk_is_closer_to_the_truth_than_lines(yaw):
    """Far less than the error of straight lines at 12 poses a cycle, and no shin shorter by more than 1 %."""
    truth = walk_track(np.arange(97) / 48, yaw)
    between = interpolate(truth[::4], 3)
    lines = np.stack([np.interp(np.arange(97), np.arange(0, 97, 4), v) for v in truth[::4].reshape(25, -1).T], 1)
    assert error(between, truth) < 0.4 * error(lines.reshape(truth.shape), truth)
    shin = np.linalg.norm(between[:, 10] - between[:, 9], axis=1)
    if yaw == 90:
        np.testing.assert_allclose(shin, np.linalg.norm(truth[:, 10] - truth[:, 9], axis=1), rtol=0.01)


def test_interpolate_joint_missing_on_one_side_is_missing_between():
    truth = walk_track(np.arange(6) / 12)
    track = truth.copy()
    track[2, 3] = np.nan  # an elbow: its wrist is interpolated without it
    between = interpolate(track, 1)
    assert np.isnan(between[3:6, 3]).all()
    assert np.isnan(between).sum() == 6
    known = ~np.isnan(between)
    np.testing.assert_allclose(between[known], interpolate(truth, 1)[known], atol=1.0)
