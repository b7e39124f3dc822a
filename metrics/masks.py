"""Where the person is, by the pose: the mask of mask-SSIM (Ma et al., NeurIPS 2017) as PATN draws it."""

import numpy as np
from skimage.draw import disk, polygon
from skimage.morphology import closing

from util.draw_pose import LIMBS

# the skeleton's limbs, and lines that fill the torso and the head
MASK_LIMBS = (*LIMBS, (1, 16), (1, 17), (16, 17), (8, 2), (11, 5), (8, 11))
RADIUS = 4  # pixels in a photo 128 pixels high, in proportion elsewhere
CLOSING = np.ones((5, 5), bool)


def pose_mask(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Keypoints (18,2) of (y, x) in pixels, NaN = missing -> bool `size` (H, W).

    Joints are discs, limbs whose two joints are known are bars of twice the discs' radius; the whole is closed with a
    5 x 5 square. Multiplied into both images, it leaves the background black.
    """
    mask = np.zeros(size, bool)
    keypoints = keypoints.astype(np.float64)  # in float32 the bars' corners move, and pixels at their edges change
    radius = RADIUS * size[0] / 128
    known = ~np.isnan(keypoints).any(axis=1)
    for a, b in MASK_LIMBS:
        along = keypoints[a] - keypoints[b]
        if known[a] and known[b] and along.any():
            across = radius * np.array([-along[1], along[0]]) / np.linalg.norm(along)
            corners = keypoints[[a, a, b, b]] + np.outer((1, -1, -1, 1), across)
            mask[polygon(*corners.T, shape=size)] = True
    for joint in keypoints[known]:
        mask[disk(joint, radius, shape=size)] = True
    return closing(mask, CLOSING)
