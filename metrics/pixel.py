"""Metrics of the pixels of two 8-bit images: generated a, target b.

psnr, mae, l1 and ssim take gray levels as 0..1, ssim_256 as 0..255.
"""

import math
from collections.abc import Iterable

from torch import Tensor

from metrics.protocols import Protocol
from metrics.ssim import gaussian_ssim, moments, uniform_ssim


class Comparison:
    """Two uint8 images (3,H,W) with `margin` white columns at each side.

    Sums are exact: float32 holds every sum along a row of up to 256 columns, float64 the rest.
    """

    def __init__(self, fake: Tensor, real: Tensor, margin: int, protocol: Protocol) -> None:
        x, y = fake.float(), real.float()
        self.planes, self.margin = moments(x, y), margin
        white = 2 * margin * x.shape[0] * x.shape[1]  # values in the margins
        self.size = x.numel() + white
        self.sum = (x + y).sum(-1).double().sum().item() + 2 * 255 * white
        own_range = (255 if margin else x.max().item()) - x.min().item()  # of the generated image
        self.range_256 = own_range if protocol.ssim_256_range == "generated" else 255.0

    def absolute_difference(self) -> float:
        """sum |a - b|, in levels of 0..255."""
        return self.planes[1].abs().sum(-1).double().sum().item()

    def psnr(self) -> float:
        """10 log10(1 / mean (a - b)^2), in dB; infinite for equal images."""
        squared = self.planes[3].sum(-1).double().sum().item()  # sum (a - b)^2, in levels of 0..255
        return 10 * math.log10(255**2 * self.size / squared) if squared else math.inf

    def ssim(self) -> float:
        """SSIM with a uniform window of 51 x 51."""
        return uniform_ssim(self.planes, self.margin)

    def ssim_256(self) -> float:
        """SSIM with the Gaussian window of Wang et al. and the protocol's data range."""
        return gaussian_ssim(self.planes, self.margin, self.range_256)

    def mae(self) -> float:
        """sum |a - b| / sum (a + b); 0 for two black images."""
        return self.absolute_difference() / max(self.sum, 1.0)

    def l1(self) -> float:
        """mean |a - b|."""
        return self.absolute_difference() / (255 * self.size)


PIXEL_METRICS = {
    "psnr": Comparison.psnr, "ssim": Comparison.ssim, "ssim_256": Comparison.ssim_256,
    "mae": Comparison.mae, "l1": Comparison.l1,
}  # fmt: skip
# of images that are black outside the pose mask, never padded
MASKED_PIXEL_METRICS = {"mask_ssim": Comparison.ssim_256, "mask_psnr": Comparison.psnr}


def score_pixels(
    fake: Tensor, real: Tensor, mask: Tensor | None, names: Iterable[str], protocol: Protocol, data_set: str
) -> dict[str, float]:
    """Those of `names` that this module computes, for one pair.

    `fake`, `real`: uint8 (3,H,W). `mask`: bool (1,H,W), for the mask metrics.
    """
    scores = {}
    if plain := [name for name in names if name in PIXEL_METRICS]:
        pair = Comparison(fake, real, protocol.margin(data_set), protocol)
        scores |= {name: PIXEL_METRICS[name](pair) for name in plain}
    if masked := [name for name in names if name in MASKED_PIXEL_METRICS]:
        pair = Comparison(fake * mask, real * mask, 0, protocol)
        scores |= {name: MASKED_PIXEL_METRICS[name](pair) for name in masked}
    return scores
