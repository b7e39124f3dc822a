"""The pixel metrics in plain scikit-image and NumPy: what production must agree with, and is timed against.

And the pose mask, written down once more.
"""

import math

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
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


# --- the protocols of the field, in plain NumPy, SciPy, Pillow and scikit-image --------------------------------------


def opencv_resize(image: np.ndarray, size: tuple[int, int], taps: int) -> np.ndarray:
    """(H,W,3) -> float64 (*size,3) by OpenCV's bilinear (2 taps) or bicubic (4 taps, a = -0.75) filter."""
    for axis, length in enumerate(size):
        old = image.shape[axis]
        matrix = np.zeros((length, old))
        for row in range(length):
            center = (row + 0.5) * old / length - 0.5
            for tap in range(math.floor(center) - taps // 2 + 1, math.floor(center) + taps // 2 + 1):
                matrix[row, np.clip(tap, 0, old - 1)] += _opencv_weight(abs(center - tap), taps)
        image = np.moveaxis(np.tensordot(matrix, image.astype(float), (1, axis)), 0, axis)
    return image


def _opencv_weight(x: float, taps: int) -> float:
    if taps == 2:
        return max(0.0, 1 - x)
    a = -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a


def pillow_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def cfld_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An anti-aliased bicubic filter on float levels, which are clipped and truncated; Pillow has it for floats too."""
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in image.transpose(2, 0, 1)]
    resized = np.stack([np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC)) for plane in planes], -1)
    return np.clip(resized, 0, 255).astype(np.uint8)


def gaussian_ssim(fake: np.ndarray, real: np.ndarray, sigma: float, cut: float, spread: float) -> float:
    """SSIM (H,W,3) as scikit-image computes it, with a window that is cut at `cut` sigma (3.5 there, once 4)."""
    values = []
    for a, b in zip(fake.astype(float).transpose(2, 0, 1), real.astype(float).transpose(2, 0, 1)):
        mean = lambda plane: gaussian_filter(plane, sigma, truncate=cut, mode="reflect")  # noqa: E731
        m_a, m_b = mean(a), mean(b)
        v_a, v_b, v_ab = mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b
        c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
        ssim = (2 * m_a * m_b + c1) * (2 * v_ab + c2) / ((m_a**2 + m_b**2 + c1) * (v_a + v_b + c2))
        border = int(3.5 * sigma + 0.5)
        values.append(ssim[border:-border, border:-border].mean())
    return float(np.mean(values))


def protocol_images(name: str, generated: np.ndarray, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Files uint8 (H,W,3) of DeepFashion -> what the pixel metrics of a paper see."""
    if name in ("gfla", "pidm"):
        return pillow_resize(generated, (256, 256)), pillow_resize(photo, (256, 256))
    if name == "cfld":
        return cfld_resize(generated, (256, 176)), pillow_resize(photo, (256, 176))
    if name == "pcdms":
        return opencv_resize(generated, (256, 176), 4), opencv_resize(photo, (256, 176), 4)
    return generated, photo


def protocol_scores(name: str, fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """All pixel metrics of a paper, of what `protocol_images` returned."""
    if name in ("dptn", "patn"):
        fake, real = (np.pad(image, ((0, 0), (256 - 216, 40), (0, 0)), constant_values=255) for image in (fake, real))
    sigma, cut = {"pidm": (1.2, 3.5), "pcdms": (1.2, 3.5), "patn": (1.5, 4)}.get(name, (1.5, 3.5))
    spread = 255.0 if name == "standard" else float(fake.max()) - float(fake.min())
    a, b = fake / 255, real / 255
    return {
        "psnr": 10 * math.log10(1 / np.square(a - b).mean()),
        "ssim": structural_similarity(b, a, data_range=1, win_size=51, channel_axis=2),
        "ssim_256": gaussian_ssim(fake, real, sigma, cut, spread),
        "mae": np.abs(a - b).sum() / (a + b).sum(),
        "l1": np.abs(a - b).mean() * (2 if name == "patn" else 1),
    }
