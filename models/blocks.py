"""Convolution blocks of the DPTN generator (section 3 of the paper; layer by layer in the README).

All are pre-activation: norm, LeakyReLU(0.1), convolution. Letters: B batch, C channels, H x W positions.
`Norm` makes a normalisation for a channel count: instance norm in the paper, batch norm by option.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
SLOPE = 0.1  # of every LeakyReLU in generator, transformer and discriminator


def leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 to float32; float32, and the float64 that the tests use, as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager:
    """Switches autocast off where it can be on: MPS always computes in float32 here."""
    return nullcontext() if x.device.type == "mps" else torch.autocast(x.device.type, enabled=False)


class FirstDownBlock(nn.Module):
    """(B,in,H,W) -> (B,out,H/2,W/2). Starts with a convolution, for its input is an image and heat maps."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(leaky_relu(self.norm(self.conv1(x))))


class DownBlock(nn.Module):
    """(B,in,H,W) -> (B,out,H/2,W/2)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm2 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(leaky_relu(self.norm1(x)))
        return self.conv2(leaky_relu(self.norm2(x)))


class ResidualBlock(nn.Module):
    """(B,C,H,W) -> (B,C,H,W), with a 1x1 convolution on the shortcut."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(leaky_relu(self.norm1(x)))
        y = self.conv2(leaky_relu(self.norm2(y)))
        return y + self.shortcut(x)


class UpBlock(nn.Module):
    """(B,in,H,W) -> (B,out,2H,2W) by transposed convolutions on both paths."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        double = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        self.norm1 = norm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.up = nn.ConvTranspose2d(out_channels, out_channels, **double)
        self.shortcut = nn.ConvTranspose2d(in_channels, out_channels, **double)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(leaky_relu(self.norm1(x)))
        y = self.up(leaky_relu(self.norm2(y)))
        return y + self.shortcut(x)


class OutputBlock(nn.Module):
    """(B,C,H,W) features -> (B,3,H,W) image in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return at_least_float32(self.conv(leaky_relu(x))).tanh()
