"""The pixel metrics in plain scikit-image and NumPy: what production must agree with, and is timed against.

And the pose mask, written down once more.
"""

import math

import numpy as np
from skimage.draw import polygon
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

# PATN's, by the numbers of OpenPose's COCO-18 joints
MASK_LIMBS = [
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17),
]  # fmt: skip


def reference_mask(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(18,2) of (y, x), NaN = missing -> bool (H,W).

    As PATN in float64, and with its order of operations and corners: where a pixel lies on the very edge of a bar,
    which happens in every hundredth, rounding decides.
    """
    radius = 4 * size[0] / 128
    joints = [None if np.isnan(joint).any() else tuple(map(float, joint)) for joint in keypoints]
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    mask = np.zeros(size, bool)
    for a, b in MASK_LIMBS:
        if joints[a] is None or joints[b] is None or joints[a] == joints[b]:
            continue
        (y0, x0), (y1, x1) = joints[a], joints[b]
        length = math.sqrt((y0 - y1) ** 2 + (x0 - x1) ** 2)
        dy, dx = radius * -(x0 - x1) / length, radius * (y0 - y1) / length
        mask[polygon((y0 + dy, y0 - dy, y1 - dy, y1 + dy), (x0 + dx, x0 - dx, x1 - dx, x1 + dx), size)] = True
    for y, x in filter(None, joints):
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    wide = np.pad(mask, 2)
    grown = np.any([wide[y : y + size[0], x : x + size[1]] for y in range(5) for x in range(5)], axis=0)
    wide = np.pad(grown, 2, constant_values=True)  # outside the photo nothing is eroded
    return np.all([wide[y : y + size[0], x : x + size[1]] for y in range(5) for x in range(5)], axis=0)


def reference_scores(fake: np.ndarray, real: np.ndarray, width: int, full_range: bool) -> dict[str, float]:
    """Two uint8 (H,W,3), padded with white columns to `width`. `full_range`: of ssim_256; else the fake's own range."""
    columns = (width - fake.shape[1]) // 2
    fake, real = (
        np.pad(image, ((0, 0), (columns, columns), (0, 0)), constant_values=255).astype(float) for image in (fake, real)
    )
    spread = 255.0 if full_range else fake.max() - fake.min()
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    a, b = fake / 255, real / 255
    return {
        "psnr": peak_signal_noise_ratio(b, a, data_range=1),
        "ssim": structural_similarity(b, a, data_range=1, win_size=51, channel_axis=2),
        "ssim_256": structural_similarity(real, fake, data_range=spread, channel_axis=2, **gaussian),
        "mae": np.abs(a - b).sum() / (a + b).sum(),
        "l1": np.abs(a - b).mean(),
    }
