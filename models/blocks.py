"""Convolution blocks of the DPTN generator (section 3 of the paper).

All but the first and the last are pre-activation: norm, LeakyReLU(0.1), convolution. Letters: B batch, C channels,
H x W positions.
`Norm` makes a normalization for a channel count: instance norm in the paper, batch norm by option.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import ops
from models.ops import leaky_relu

Norm = Callable[[int], nn.Module]


class InstanceNorm(nn.Module):
    """Affine InstanceNorm1d and InstanceNorm2d in one: (B,C,...) -> (B,C,...), without running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return ops.instance_norm(x, self.weight, self.bias)


class FirstDownBlock(nn.Module):
    """(B,in,H,W) -> (B,out,H/2,W/2). There is no norm or activation before the first convolution: its input is raw."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, shared: Tensor, own: Tensor | None = None) -> Tensor:
        """The input is `shared`; with `own` (k*B,C,H,W), further channels of k branches, it is both for each branch."""
        y = self.conv1(shared) if own is None else ops.conv2d_shared_input(self.conv1, shared, own)
        return self.conv2(leaky_relu(self.norm(y)))


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
    """(B,in,H,W) -> (B,out,2H,2W), with a transposed convolution on both paths."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.up = nn.ConvTranspose2d(out_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.shortcut = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(leaky_relu(self.norm1(x)))
        y = leaky_relu(self.norm2(y))
        return ops.sum_of_up_convolutions(y, self.up, x, self.shortcut)  # self.up(y) + self.shortcut(x)


class OutputBlock(nn.Module):
    """(B,C,H,W) features -> (B,3,H,W) image in [-1, 1], float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(ops.reflection_pad(x, 1))
        return ops.at_least_float32(self.conv(x)).tanh()
