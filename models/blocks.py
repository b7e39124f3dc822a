"""Convolution blocks of the DPTN generator (section 3 of the paper; layer by layer in the README).

All are pre-activation: norm, LeakyReLU(0.1), convolution. Letters: B batch, C channels, H x W positions.
`Norm` makes a normalization for a channel count: instance norm in the paper, batch norm by option.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

Norm = Callable[[int], nn.Module]
SLOPE = 0.1  # of every LeakyReLU in generator, transformer and discriminator
EPSILON = 1e-5  # added to every variance


def leaky_relu(x: Tensor, slope: float = SLOPE, overwrite: bool = True) -> Tensor:
    """In place of `x` unless it is needed afterwards (`overwrite`), which saves a copy of every activation."""
    return _LeakyReLU.apply(x, slope) if torch.compiler.is_compiling() else F.leaky_relu(x, slope, inplace=overwrite)


class _LeakyReLU(torch.autograd.Function):
    """torch's, for compiled code. That would keep a mask for the backward pass, and store its Booleans one by one on a
    CPU, which takes 16 times as long as the activation. Here the result is kept, as the next convolution does anyway,
    and the gradient is made from its sign."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu(x, slope)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient * (ctx.slope + (1 - ctx.slope) * y.sign().clamp(min=0)), None


def at_least_float32(x: Tensor) -> Tensor:
    """bfloat16 to float32; float32, and the float64 that the tests use, as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager:
    """Switches autocast off where it can be on: MPS always computes in float32 here."""
    return nullcontext() if x.device.type == "mps" else torch.autocast(x.device.type, enabled=False)


class InstanceNorm(nn.Module):
    """torch's affine InstanceNorm1d and 2d in one, (B,C,...) -> the same: over all positions, nothing is kept running.

    Compiled code gets it written out, so that it is fused with what surrounds it in any memory order.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON)
        return _InstanceNorm.apply(x, *(p.view(-1, *(1,) * (x.ndim - 2)) for p in (self.weight, self.bias)))


class _InstanceNorm(torch.autograd.Function):
    """(B,C,...) with weight and bias (C,1,...) -> float32 or better; keeps no more than `x` as it came.

    On a CPU a sum over all positions is one over rows of it, and then over their sums: a row stays in the cache until
    its second sum is done, and there are enough rows for every thread.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = _mean_and_variance(at_least_float32(x))
        scale = (variance + EPSILON).rsqrt()
        ctx.save_for_backward(x, mean, scale, weight)
        return (at_least_float32(x) - mean) * once(scale * weight) + bias

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, scale, weight = ctx.saved_tensors
        centered = at_least_float32(x) - mean
        for_bias = _rows(gradient).sum(3).sum(2).view_as(mean)  # of each sample
        for_weight = _rows(gradient * centered).sum(3).sum(2).view_as(mean) * scale
        share = 1 / x.shape[2:].numel()
        slope = once(for_weight * scale * share)
        for_x = (gradient - once(for_bias * share) - centered * slope) * once(scale * weight)
        return for_x.to(x.dtype), for_weight.sum(0), for_bias.sum(0)


def _rows(x: Tensor) -> Tensor:
    """(B,C,...) -> (B,C,R,S): all positions as R rows of S, at most 64; as one row but on a CPU."""
    positions = x.flatten(2)
    count = positions.shape[2]
    length = next(n for n in (64, 32, 16, 8, 4, 2, 1) if count % n == 0) if x.device.type == "cpu" else count
    return positions.unflatten(2, (count // length, length))


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel's positions: (B,C,...) -> two of (B,C,1,...). The variance is that within rows plus that between
    rows, so that nothing cancels (Chan, Golub and LeVeque, 1983)."""
    rows = _rows(x)
    row_mean = rows.sum(3) * (1 / rows.shape[3])
    row_variance = (rows - row_mean.unsqueeze(3)).square().sum(3) * (1 / rows.shape[3])
    mean = row_mean.sum(2, keepdim=True) * (1 / rows.shape[2])
    variance = (row_variance + (row_mean - mean).square()).sum(2) * (1 / rows.shape[2])
    shape = (*x.shape[:2], *(1,) * (x.ndim - 2))
    return mean.view(shape), variance.view(shape)


def once(x: Tensor) -> Tensor:
    """`x`, computed once: compiled code for a CPU would repeat what it takes for each element of a larger result.

    Only sums and the like are always stored; so this is the largest of equal values, of too many to be written out.
    """
    return x.unsqueeze(-1).expand(*x.shape, 16).amax(-1) if x.device.type == "cpu" else x


class FirstDownBlock(nn.Module):
    """(B,in,H,W) -> (B,out,H/2,W/2). Starts with a convolution, for its input is an image and heat maps."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """`shared` (B/k,C,H,W) are the first channels of each of k branches; `x` (B,in-C,H,W) has the others."""
        y = self.conv1(x) if shared is None else self._conv1(x, shared)
        return self.conv2(leaky_relu(self.norm(y)))

    def _conv1(self, x: Tensor, shared: Tensor) -> Tensor:
        """On all channels together, as published, or in compiled code as a sum, of which one part serves all branches.

        The two round differently.
        """
        if not torch.compiler.is_compiling():
            branches = len(x) // len(shared)
            return self.conv1(torch.cat((shared.repeat(branches, 1, 1, 1), x), dim=1))
        ours, others = self.conv1.weight.split((shared.shape[1], x.shape[1]), dim=1)
        once = F.conv2d(shared, ours, self.conv1.bias, stride=2, padding=1)
        each = F.conv2d(x, others, stride=2, padding=1)
        return (each.unflatten(0, (-1, len(shared))) + once).flatten(0, 1)


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


class UpConvolution(nn.ConvTranspose2d):
    """(B,in,h,w) -> (B,out,2h,2w): transposed 3x3 convolution, stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return up_convolution(x, self.weight, self.bias)


def up_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B,in,h,w), (in,out,3,3) and (out,) -> (B,out,2h,2w)."""
    if x.device.type != "cpu":
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return _UpConvolution.apply(x.to(dtype), weight.to(dtype), bias.to(dtype))


class _UpConvolution(torch.autograd.Function):
    """torch's, but for the gradient of the weight: it is that of the convolution the other way, from result to input,
    which CPUs compute up to twelve times as fast in bfloat16. Not used elsewhere."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        for_x = F.conv2d(gradient, weight, stride=2, padding=1)
        for_weight = nn.grad.conv2d_weight(gradient, weight.shape, x, stride=2, padding=1)
        return for_x, for_weight, gradient.sum((0, 2, 3))


class UpBlock(nn.Module):
    """(B,in,H,W) -> (B,out,2H,2W) by transposed convolutions on both paths."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.up = UpConvolution(out_channels, out_channels)
        self.shortcut = UpConvolution(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(leaky_relu(self.norm1(x)))
        return self._add_up(leaky_relu(self.norm2(y)), x)

    def _add_up(self, y: Tensor, x: Tensor) -> Tensor:
        """Both paths apart, as published, or in compiled code as one convolution of all channels, which writes half as
        much.

        The two round differently.
        """
        if not torch.compiler.is_compiling():
            return self.up(y) + self.shortcut(x)
        weight = torch.cat((self.up.weight, self.shortcut.weight))
        return up_convolution(torch.cat((y, x), dim=1), weight, self.up.bias + self.shortcut.bias)


class OutputBlock(nn.Module):
    """(B,C,H,W) features -> (B,3,H,W) image in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        return at_least_float32(self.conv(x)).tanh()
