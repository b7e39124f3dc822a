"""Metrics of the pixels of two images, generated a and target b: PSNR, MAE, L1 and two SSIMs.

psnr, mae, l1 and ssim take levels as 0..1, ssim_256 as 0..255.

SSIM (Wang et al., IEEE TIP 2004) follows scikit-image's conventions, several times as fast. Only windows that lie
wholly inside the image count, so no border rule matters. With s = a + b and d = a - b, and with means m and variances v
over a window,

    SSIM = (1 - m_d^2 / ((m_s^2 + m_d^2) / 2 + c1)) (1 - v_d / ((v_s + v_d) / 2 + c2)),   c = (K data range)^2

This filters four planes (s, d and their squares) where the usual form filters five (a, b, a^2, b^2, a b), and it loses
no digits where the images are alike. A window within the white margins has SSIM 1 and is not computed. The result
agrees with scikit-image's to 1e-7.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.protocols import Protocol

WINDOW = 51  # pixels, of the uniform window
K1, K2 = 0.01, 0.03
BLOCK = 32  # outputs that one small matrix product filters


class Comparison:
    """Two images (3,H,W), uint8 or float levels, with `margin` white columns at each side, which `planes` lacks."""

    def __init__(self, fake: Tensor, real: Tensor, margin: int, protocol: Protocol) -> None:
        self.integer_levels = not (fake.is_floating_point() or real.is_floating_point())  # levels are whole numbers
        dtype = torch.float32 if self.integer_levels else torch.float64
        x, y = fake.to(dtype), real.to(dtype)
        self.planes = x.new_empty(4, *x.shape)  # s - 255, which keeps sums small, d, and the squares of both
        torch.add(x, y, out=self.planes[0]).sub_(255)
        torch.sub(x, y, out=self.planes[1])
        torch.mul(self.planes[:2], self.planes[:2], out=self.planes[2:])
        self.margin = margin
        self.margin_values = 2 * margin * x.shape[0] * x.shape[1]  # values in the margins
        self.size = x.numel() + self.margin_values
        self.protocol = protocol
        own_range = (255 if margin else x.max().item()) - x.min().item()  # of the generated image
        self.range_256 = own_range if protocol.ssim_256_range == "generated" else 255.0

    def psnr(self) -> float:
        """10 log10(1 / mean (a - b)^2), in dB; infinite for equal images."""
        squared = _sum(self.planes[3])
        return 10 * math.log10(255**2 * self.size / squared) if squared else math.inf

    def mae(self) -> float:
        """sum |a - b| / sum (a + b); 0 for two black images."""
        # planes[0] lacks 255 of each value; each value of the margins adds 255 + 255
        return _sum(self.planes[1].abs()) / max(_sum(self.planes[0]) + 255 * (self.size + self.margin_values), 1.0)

    def l1(self) -> float:
        """mean |a - b|, times the protocol's range of levels."""
        return self.protocol.l1_range * _sum(self.planes[1].abs()) / (255 * self.size)

    def ssim(self) -> float:
        """Mean SSIM with a uniform window of 51 x 51 and sample covariance."""
        area = WINDOW**2
        planes = self._add_white_columns(WINDOW - 1)
        planes = planes.int() if self.integer_levels else planes.double()
        levels, squares = _window_sums(_window_sums(planes).mT.contiguous()).double().chunk(2)
        # area * sum of squares - square of sum: exact for whole numbers, because both are below 2^53
        variances = squares.mul_(area).addcmul_(levels, levels, value=-1).float().div_(area * (area - 1))
        return self._mean_ssim(levels.div_(area).float(), variances, 255.0, WINDOW)

    def ssim_256(self) -> float:
        """Mean SSIM with the Gaussian window of Wang et al., population covariance and the protocol's data range.

        As in scikit-image, only windows whose center is at least `border` pixels inside the image count. Where a window
        reaches further than that, the pixels at the image's edge are repeated.
        """
        sigma, radius = self.protocol.ssim_256_sigma, self.protocol.ssim_256_taps // 2
        border = int(3.5 * sigma + 0.5)
        planes = F.pad(self._add_white_columns(2 * radius), [radius - border] * 4, mode="replicate").double()
        means = _gaussian_means(_gaussian_means(planes, sigma, radius), sigma, radius)
        levels, squares = means.chunk(2)
        variances = torch.addcmul(squares, levels, levels, value=-1).float()
        return self._mean_ssim(levels.float(), variances, self.range_256, 2 * border + 1)

    def _add_white_columns(self, most: int) -> Tensor:
        """The planes with their margins, or with `most` columns of them at each side: (4,C,H,W + 2 columns)."""
        if not (columns := min(self.margin, most)):
            return self.planes
        *shape, width = self.planes.shape
        wide = self.planes.new_zeros(*shape, width + 2 * columns)
        wide[0], wide[2] = 255, 255**2
        wide[..., columns:-columns] = self.planes
        return wide

    def _mean_ssim(self, means: Tensor, variances: Tensor, data_range: float, side: int) -> float:
        """Mean SSIM over all windows of `side` x `side`, from means and variances in them.

        `means`, `variances`: float32 (2,C,h,w) each, of s - 255 and of d; both are changed in-place. No step here
        subtracts nearly equal numbers, so float32 is precise enough.
        """
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        (level, difference), (v_s, v_d) = means, variances
        contrast = v_s.add_(v_d).mul_(0.5).add_(c2).reciprocal_().mul_(v_d)
        m_s, m_d = level.add_(255).square_(), difference.square_()
        luminance = m_s.add_(m_d).mul_(0.5).add_(c1).reciprocal_().mul_(m_d)
        dissimilarity = (luminance + contrast).addcmul_(luminance, contrast, value=-1).sum(dtype=torch.float64).item()
        _, channels, height, width = self.planes.shape
        return 1 - dissimilarity / (channels * (height - side + 1) * (width + 2 * self.margin - side + 1))


PIXEL_METRICS = {
    "psnr": Comparison.psnr, "ssim": Comparison.ssim, "ssim_256": Comparison.ssim_256,
    "mae": Comparison.mae, "l1": Comparison.l1,
}  # fmt: skip
# of images that are black outside the pose mask, never padded
MASKED_PIXEL_METRICS = {"mask_ssim": Comparison.ssim_256, "mask_psnr": Comparison.psnr}


def score_pixels(
    fake: Tensor, real: Tensor, mask: Tensor | None, names: Iterable[str], protocol: Protocol, dataset_mode: str
) -> dict[str, float]:
    """Those of `names` that this module computes, for one pair.

    `fake`, `real`: (3,H,W), uint8 or float levels. `mask`: bool (1,H,W), for the mask metrics.
    """
    scores = {}
    if plain := [name for name in names if name in PIXEL_METRICS]:
        pair = Comparison(fake, real, protocol.margin(dataset_mode), protocol)
        scores |= {name: PIXEL_METRICS[name](pair) for name in plain}
    if masked := [name for name in names if name in MASKED_PIXEL_METRICS]:
        pair = Comparison(fake * mask, real * mask, 0, protocol)
        scores |= {name: MASKED_PIXEL_METRICS[name](pair) for name in masked}
    return scores


def _sum(plane: Tensor) -> float:
    """Exact for whole numbers in rows of up to 256 columns: float32 holds the sum of a row, float64 the rest."""
    return plane.sum(-1).double().sum().item()


def _window_sums(planes: Tensor) -> Tensor:
    """int32 or float64 (...,W) -> sums of 51 neighbors (...,W-50).

    Cumulative sums of int32 may overflow; a window's sum is below 2^31, so the difference modulo 2^32 is still right.
    """
    running = planes.new_empty(*planes.shape[:-1], planes.shape[-1] + 1)
    running[..., 0] = 0
    torch.cumsum(planes, -1, dtype=planes.dtype, out=running[..., 1:])
    return running[..., WINDOW:] - running[..., :-WINDOW]


def _gaussian_means(planes: Tensor, sigma: float, radius: int) -> Tensor:
    """float64 (...,H,W) -> weighted means of 2 radius + 1 neighbors along W, transposed: (...,W - 2 radius,H)."""
    count = planes.shape[-1] - 2 * radius
    blocks = []
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        blocks.append(planes[..., start : start + size + 2 * radius] @ _band(size, sigma, radius))
    return torch.cat(blocks, dim=-1).mT


@lru_cache
def _band(size: int, sigma: float, radius: int) -> Tensor:
    """(size + 2 radius, size) float64: column i holds the Gaussian's weights from row i on."""
    from scipy.linalg import convolution_matrix  # only SSIM needs scipy, which takes 14 MB

    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return torch.from_numpy(convolution_matrix(weights / weights.sum(), size))
