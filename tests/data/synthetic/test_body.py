"""The body's geometry against closed forms, and what is visible of it."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from data.synthetic.body import (
    CAMERA_TILT,
    CLOTH_PATTERNS,
    HAIR_STYLES,
    Posture,
    body_surfaces,
    cloth_colors,
    pose_skeleton,
    render,
    rotation,
    tube,
    visible_keypoints,
)
from data.synthetic.people import random_person, random_posture

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # a division by zero would spoil the image
UPRIGHT = Posture(arm_sideways=(0, 0), spread=(0, 0), elbow=(0, 0))


def person(seed: int = 0, **changes: object):
    return dataclasses.replace(random_person(np.random.default_rng(seed)), **changes)


def level(joints: np.ndarray) -> np.ndarray:
    """Joints without the camera's tilt."""
    return joints @ rotation("x", -CAMERA_TILT)


def test_upright_skeleton_has_limbs_of_their_lengths():
    """Right joints at the viewer's left, limbs hanging at their lengths, facing the viewer."""
    someone = person()
    joints = level(pose_skeleton(someone, UPRIGHT).joints)
    np.testing.assert_allclose(joints[1], (0, -0.5, 0), atol=1e-12)
    np.testing.assert_allclose(joints[2], (-someone.shoulder, -0.48, 0), atol=1e-12)
    np.testing.assert_allclose(joints[4] - joints[2], (0, 0.29 + 0.25, 0), atol=1e-12)
    np.testing.assert_allclose(joints[13] - joints[11], (0, 0.43 + 0.42, 0), atol=1e-12)
    mirrored = joints[[0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]] * (-1, 1, 1)
    np.testing.assert_allclose(joints, mirrored, atol=1e-12)
    assert (joints[[0, 14, 15], 2] > 0.05).all()  # the face is in front


def test_joint_angles_turn_the_bones():
    """Arms out sideways; left thigh level to the front with the shin hanging; right elbow bent to the front."""
    posture = Posture(arm_sideways=(0, 90), hip=(0, 90), knee=(0, 90), spread=(0, 0), elbow=(90, 0))
    joints = level(pose_skeleton(person(), posture).joints)
    np.testing.assert_allclose(joints[7] - joints[5], (0.54, 0, 0), atol=1e-12)
    np.testing.assert_allclose(joints[4] - joints[3], (0, 0, 0.25), atol=1e-12)
    np.testing.assert_allclose(joints[12] - joints[11], (0, 0, 0.43), atol=1e-12)
    np.testing.assert_allclose(joints[13] - joints[12], (0, 0.42, 0), atol=1e-12)


@pytest.mark.parametrize("yaw", [0, 90, 180, 270])
def test_yaw_turns_every_joint_about_the_vertical(yaw):
    """Turning the person turns every joint about the vertical."""
    front, turned = (level(pose_skeleton(person(), dataclasses.replace(UPRIGHT, yaw=a)).joints) for a in (0, yaw))
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    expected = np.stack([c * front[:, 0] + s * front[:, 2], front[:, 1], -s * front[:, 0] + c * front[:, 2]], 1)
    np.testing.assert_allclose(turned, expected, atol=1e-12)


def render_person(someone, posture: Posture, size=(256, 128), scale=130.0):
    skeleton = pose_skeleton(someone, posture)
    image = np.full((*size, 3), -1.0)
    origin = (size[1] / 2, size[0] * 0.47)
    depth = render(body_surfaces(someone, skeleton, scale), image, origin, scale)
    return image, depth, visible_keypoints(skeleton.joints, depth, origin, scale, size)


def test_face_is_hidden_from_behind():
    bald = person(hair_style="bald", bag=None)
    front, back, side = (render_person(bald, Posture(yaw=yaw, arm_sideways=(14, 14)))[2] for yaw in (0, 180, 90))
    assert not np.isnan(front).any()
    assert np.isnan(back[[0, 14, 15]]).all()
    assert np.isnan(side[17]).all()  # looking to the viewer's right shows the right ear
    assert not np.isnan(side[16]).any()
    assert front[5, 1] > front[2, 1]  # the person's left is at the right
    assert back[5, 1] < back[2, 1]


def test_arm_behind_the_back_is_missing():
    behind = Posture(arm_forward=(0, -25), arm_sideways=(10, 5), arm_turn=(0, 60), elbow=(0, 80))
    keypoints = render_person(person(bag=None), behind)[2]
    assert np.isnan(keypoints[7]).all()
    assert not np.isnan(keypoints[4]).any()


def test_visible_joints_lie_on_the_body_and_the_body_has_no_holes():
    random = np.random.default_rng(3)
    for number in range(8):
        someone = random_person(random)
        posture = random_posture(random, number)
        image, depth, keypoints = render_person(someone, posture, scale=100.0 + 30 * number)
        covered = np.isfinite(depth)
        assert (image[covered] >= 0).all()
        assert (image[~covered] == -1).all()
        limbs = keypoints[[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]
        y, x = limbs[~np.isnan(limbs).any(1)].astype(int).T
        assert covered[y, x].all()
    alone = render_person(person(skirt=0.0, bag=None), Posture(arm_sideways=(0, 0), spread=(-8, -8)), scale=135.0)[1]
    torso = np.isfinite(alone)[70:110, 50:78]
    assert (binary_fill_holes(torso) == torso).all()
    assert torso[:, 10:18].all()


@pytest.mark.parametrize("scale", [20, 90, 377])
def test_tube_has_the_outline_and_depth_of_a_capsule(scale):
    """Its outline has the area of the closed form, without holes, and its depth is that of a cylinder."""
    axis, left = np.array([[0, -0.3, 0], [0, 0, 0], [0, 0.3, 0]]), np.array([[1.0, 0, 0]] * 3)
    surface = tube(axis, left, [0.1, 0.1], [0.1, 0.1], lambda a, b: np.ones((*a.shape, 3)), scale, ends=(0.1, 0.1))
    side = int(scale)
    depth = render([surface], np.zeros((side, side, 3)), (side / 2, side / 2), scale)
    covered = np.isfinite(depth)
    assert (binary_fill_holes(covered) == covered).all()
    area, outline = (0.4 * 0.2 + np.pi * 0.1**2) * scale**2, (0.8 + 2 * np.pi * 0.1) * scale
    assert area <= covered.sum() <= area + outline  # a pixel counts when any part of it is covered
    x = (np.arange(side) + 0.5 - side / 2) / scale
    middle = np.abs(x) < 0.08
    np.testing.assert_allclose(depth[side // 2, middle], np.sqrt(0.01 - x[middle] ** 2), atol=1.5 / scale)


def test_render_shows_the_nearest_surface():
    left = np.array([[1.0, 0, 0]] * 2)
    near, far = (
        tube(np.array([[0, -0.2, z], [0, 0.2, z]]), left, [0.1] * 2, [0.1] * 2,
             lambda a, b, gray=gray: np.full((*a.shape, 3), gray), 50.0)
        for z, gray in ((0.5, 1.0), (0.0, 0.1))
    )  # fmt: skip
    for order in ([near, far], [far, near]):
        image = np.zeros((40, 40, 3))
        depth = render(order, image, (20, 20), 50.0)
        assert image[20, 20, 0] > 0.5
        assert depth[20, 20] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("pattern", CLOTH_PATTERNS)
def test_cloth_patterns_use_the_cloths_colors_only(pattern):
    cloth = random_person(np.random.default_rng(0)).top._replace(pattern=pattern, colors=np.eye(3), size=0.1)
    around, along = np.meshgrid(np.linspace(-0.3, 0.3, 61), np.linspace(0, 0.6, 61))
    painted = cloth_colors(cloth, around, along)
    assert painted.shape == (61, 61, 3)
    assert set(map(tuple, painted.reshape(-1, 3))) <= set(map(tuple, np.eye(3)))
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == {"plain": 1, "checks": 3, "print": 3}.get(pattern, 2)


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_style_changes_the_head_only(style):
    bald, other = (render_person(person(hair_style=s, bag=None), UPRIGHT)[0] for s in ("bald", style))
    changed = (bald != other).any(-1)
    assert changed.any() == (style != "bald")
    if style != "long":
        assert not changed[90:].any()
