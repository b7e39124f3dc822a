"""metrics/masks.py against shapes drawn by hand and a second implementation."""

import numpy as np
import pytest
from scipy import ndimage

from metrics.masks import pose_mask
from tests.helpers import REPOSITORY
from tests.metrics.reference_metrics import reference_mask


def known_joints(**known: tuple[float, float]) -> np.ndarray:
    keypoints = np.full((18, 2), np.nan, np.float32)
    for number, point in known.items():
        keypoints[int(number[1:])] = point
    return keypoints


def test_pose_mask_of_one_joint_is_a_disc():
    mask = pose_mask(known_joints(j0=(40, 20)), (128, 64))
    rows, columns = np.mgrid[:128, :64]
    inside = (rows - 40) ** 2 + (columns - 20) ** 2 < 4**2
    assert (mask == ndimage.binary_closing(inside, np.ones((5, 5)))).all()
    assert mask[36:45, 20].tolist() == [False, *[True] * 7, False]


def test_pose_mask_of_a_limb_is_a_bar():
    """Right hip and knee, one above the other: columns 26 to 34 between them, discs at the ends."""
    mask = pose_mask(known_joints(j8=(50, 30), j9=(80, 30)), (128, 64))
    by_hand = np.zeros((128, 64), bool)
    by_hand[50:81, 26:35] = True
    rows, columns = np.mgrid[:128, :64]
    for row in (50, 80):
        by_hand |= (rows - row) ** 2 + (columns - 30) ** 2 < 4**2
    assert (mask == ndimage.binary_closing(by_hand, np.ones((5, 5)))).all()


def test_pose_mask_leaves_joints_without_a_limb_apart():
    mask = pose_mask(known_joints(j4=(20, 20), j10=(100, 40)), (128, 64))
    assert not mask[30:90].any()


def test_pose_mask_fills_torso_and_closes_gaps():
    torso = {"j2": (30, 20), "j5": (30, 44), "j8": (70, 24), "j11": (70, 40)}
    mask = pose_mask(known_joints(**torso), (128, 64))
    assert mask[[50, 50, 70], [22, 42, 32]].all()  # shoulder to hip on both sides, hip to hip
    near = pose_mask(known_joints(j4=(20, 20), j7=(20, 29)), (128, 64))  # discs two pixels apart
    assert near[20, 20:30].all()


def test_pose_mask_radius_is_in_proportion_to_height():
    mask = pose_mask(known_joints(j0=(100, 80)), (256, 176))
    assert mask[100, 73:88].all()
    assert not mask[100, [71, 89]].any()


@pytest.mark.parametrize("size", [(128, 64), (256, 176)])
def test_pose_mask_of_random_poses_equals_reference(size):
    random = np.random.RandomState(0)
    for number in range(30):
        keypoints = random.randint(-4, (size[0] + 4, size[1] + 4), (18, 2)).astype(np.float32)
        keypoints[random.rand(18) < 0.2] = np.nan
        assert (pose_mask(keypoints, size) == reference_mask(keypoints, size)).all(), number


def test_pose_mask_of_joint_outside_the_image_is_empty():
    assert not pose_mask(known_joints(j0=(-40, 10)), (128, 64)).any()


def test_pose_mask_of_edge_cases_equals_scikit_image_today():
    goldens = np.load(REPOSITORY / "tests/goldens/mask_lpips_goldens.npz")
    for name, pose, packed in zip(
        goldens["edge_names"], goldens["edge_keypoints_yx"], goldens["edge_masks_today"], strict=True
    ):
        missing = (pose == -1).any(axis=1, keepdims=True)
        mask = pose_mask(np.where(missing, np.nan, pose), (128, 64))
        assert (np.packbits(mask) == packed).all(), name
