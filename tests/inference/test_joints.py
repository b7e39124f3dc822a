"""Joint orders and the conversion between them."""

import numpy as np
import pytest
from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights

from data.keypoints import JOINTS
from inference.joints import BODY_25, COCO_17, MEDIAPIPE_33, from_openpose18, to_openpose18

# Indices of the joints of COCO-18 in the other orders, by their own documentation; -1: the order lacks the joint.
NUMBERS = {
    COCO_17: (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3),
    BODY_25: (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18),
    MEDIAPIPE_33: (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7),
}


@pytest.mark.parametrize("names", NUMBERS, ids=["coco", "body", "mediapipe"])
def test_to_openpose18_finds_joints_by_name(names):
    keypoints = np.random.RandomState(0).rand(len(names), 2) * 100
    right, left = NUMBERS[names][2], NUMBERS[names][5]
    expected = keypoints[list(NUMBERS[names])]
    if "neck" not in names:
        expected[1] = (keypoints[right] + keypoints[left]) / 2
    pose = to_openpose18(keypoints, names)
    assert pose.dtype == np.float32
    np.testing.assert_allclose(pose, expected, rtol=1e-6)


def test_coco_17_is_the_order_of_torchvision():
    published = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1.meta["keypoint_names"]
    assert [name.replace("_", " ") for name in published] == list(COCO_17)


def test_to_openpose18_missing_joints_stay_missing():
    keypoints = np.ones((17, 2))
    keypoints[COCO_17.index("left shoulder"), 0] = np.nan
    pose = to_openpose18(keypoints, COCO_17)
    assert [JOINTS[i] for i in np.flatnonzero(np.isnan(pose).all(1))] == ["neck", "left shoulder"]
    assert (pose[~np.isnan(pose).any(1)] == 1).all()
    with pytest.raises(ValueError, match="zip"):
        to_openpose18(keypoints[:16], COCO_17)


def test_from_openpose18_derives_the_middle_hip_and_misses_the_feet():
    pose = np.random.RandomState(0).rand(18, 2)
    keypoints = from_openpose18(pose, BODY_25)
    np.testing.assert_allclose(keypoints[8], (pose[8] + pose[11]) / 2)
    assert np.isnan(keypoints[19:]).all()
    np.testing.assert_allclose(to_openpose18(keypoints, BODY_25), pose, rtol=1e-6)
