"""Metrics computed from the pixels of two 8-bit images alone.

Gray levels count as 0..1 in psnr, mae, l1 and ssim, as 0..255 in ssim_256.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from metrics.protocols import DataSet, Protocol
from metrics.ssim import gaussian_ssim, moments, uniform_ssim


class Comparison:
    """Two uint8 images (3,H,W), with `margin` white columns at each side, and what all metrics take from them.

    float32 holds every sum along a row exactly up to 256 columns.
    """

    def __init__(self, fake: Tensor, real: Tensor, margin: int) -> None:
        x, y = fake.float(), real.float()
        self.planes, self.margin = moments(x, y), margin
        white = 2 * margin * x.shape[0] * x.shape[1]  # numbers in the margins
        self.size = x.numel() + white
        self.sum = (x + y).sum(-1).double().sum().item() + 2 * 255 * white
        self.range = (255 if margin else x.max().item()) - x.min().item()  # of the generated image

    def absolute(self) -> float:
        """sum |a - b| in gray levels."""
        return self.planes[1].abs().sum(-1).double().sum().item()

    def squared(self) -> float:
        """sum (a - b)^2 in gray levels."""
        return self.planes[3].sum(-1).double().sum().item()


def psnr(pair: Comparison, _protocol: Protocol) -> float:
    """10 log10(1 / mean squared difference), in dB; infinite for equal images."""
    squared = pair.squared()
    return 10 * math.log10(255**2 * pair.size / squared) if squared else math.inf


def ssim(pair: Comparison, _protocol: Protocol) -> float:
    """SSIM with a uniform window of 51 x 51."""
    return uniform_ssim(pair.planes, pair.margin)


def ssim_256(pair: Comparison, protocol: Protocol) -> float:
    """SSIM with the Gaussian window of Wang et al. and the protocol's data range."""
    data_range = pair.range if protocol.ssim_256_range == "generated" else 255.0
    return gaussian_ssim(pair.planes, pair.margin, data_range)


def mae(pair: Comparison, _protocol: Protocol) -> float:
    """sum |a - b| / sum (a + b); 0 for two black images."""
    return pair.absolute() / max(pair.sum, 1.0)


def l1(pair: Comparison, _protocol: Protocol) -> float:
    """mean |a - b|."""
    return pair.absolute() / (255 * pair.size)


PIXEL_METRICS: dict[str, Callable[[Comparison, Protocol], float]] = {
    "psnr": psnr, "ssim": ssim, "ssim_256": ssim_256, "mae": mae, "l1": l1,
}  # fmt: skip
# of images that are black outside the pose mask, never padded
MASKED_PIXEL_METRICS = {"mask_ssim": ssim_256, "mask_psnr": psnr}


def score_pixels(
    fakes: Tensor, reals: Tensor, masks: Tensor | None, names: Iterable[str], protocol: Protocol, data_set: DataSet
) -> dict[str, Tensor]:
    """Those of `names` that this module computes: name -> float64 (N,).

    `fakes`, `reals`: uint8 (N,3,H,W). `masks`: bool (N,1,H,W), for the mask metrics.
    """
    plain, masked = ([name for name in names if name in known] for known in (PIXEL_METRICS, MASKED_PIXEL_METRICS))
    margin = data_set.margin if protocol.pad else 0
    rows = []
    for number, (fake, real) in enumerate(zip(fakes, reals)):  # one pair at a time stays in the processor's cache
        row = []
        if plain:
            pair = Comparison(fake, real, margin)
            row += [PIXEL_METRICS[name](pair, protocol) for name in plain]
        if masked:
            pair = Comparison(fake * masks[number], real * masks[number], margin=0)
            row += [MASKED_PIXEL_METRICS[name](pair, protocol) for name in masked]
        rows.append(row)
    columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return dict(zip([*plain, *masked], columns))
