"""Scores of a generator on held-out pairs: L1, PSNR and SSIM of images in [0, 1]."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from util.image import to_uint8


class TestableModel(Protocol):
    """The part of BaseModel that validation needs."""

    def set_input(self, batch: dict[str, Any]) -> None: ...

    def test(self) -> Tensor: ...


def validate(model: TestableModel, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Average over all pairs of the loader, at network resolution, of 8-bit images.

    ssim: Gaussian window of sigma 1.5, population covariance, data range 1 (scikit-image).
    """
    rows = []
    for batch in batches:
        model.set_input(batch)
        fakes = to_uint8(model.test()).permute(0, 2, 3, 1).cpu().numpy() / 255
        reals = batch["target_image"].permute(0, 2, 3, 1).numpy() / 255
        for fake, real in zip(fakes, reals):
            ssim = structural_similarity(
                real, fake, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            psnr = peak_signal_noise_ratio(real, fake, data_range=1) if (fake != real).any() else np.inf
            rows.append((np.abs(fake - real).mean(), psnr, ssim))
    return dict(zip(("l1", "psnr", "ssim"), np.mean(rows, axis=0).tolist()))
