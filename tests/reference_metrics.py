"""The pixel metrics in plain scikit-image and NumPy: what production must agree with, and is timed against."""

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


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
