"""Operations of the networks in the form that is fastest where they run.

Every custom autograd function and every branch of the networks on device or compilation is here, so that blocks.py,
pose_transformer.py, generator.py and discriminator.py show the paper's blocks and nothing else. Each function names the
plain PyTorch expression that it equals; tests/models/test_ops.py compares the two in float64. docs/speed.md says how
much time each form saves.

Letters: B batch, C channels, H x W positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

EPSILON = 1e-5  # added to every variance
_only_plain_forms = False  # see `plain_forms`


@contextmanager
def plain_forms() -> Iterator[None]:
    """Within this context, operations on the CPU take their plain form, even while torch exports a graph.

    An exported graph then holds operations that other programs know, such as an instance norm, not their parts.
    """
    global _only_plain_forms
    _only_plain_forms = True
    try:
        yield
    finally:
        _only_plain_forms = False


def in_compiled_code() -> bool:
    """Whether torch compiles this code, so that the forms for compiled code are used."""
    return torch.compiler.is_compiling() and not _only_plain_forms


def at_least_float32(x: Tensor) -> Tensor:
    """Cast bfloat16 to float32; float32, and the float64 that the tests use, stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def leaky_relu(x: Tensor, slope: float = 0.1, inplace: bool = True) -> Tensor:
    """`F.leaky_relu(x, slope, inplace)`; working in place saves a copy of every activation. inplace=False keeps `x`."""
    return _LeakyReLU.apply(x, slope) if in_compiled_code() else F.leaky_relu(x, slope, inplace)


def relu(x: Tensor) -> Tensor:
    """`F.relu(x)`."""
    return _LeakyReLU.apply(x, 0.0) if in_compiled_code() else F.relu(x)


class _LeakyReLU(torch.autograd.Function):
    """Leaky ReLU that saves its output, not a mask, for the backward pass.

    Inductor stores a Boolean mask byte by byte on a CPU, which takes 16 times as long as the activation. The output is
    in memory anyway, as the input of the next convolution, and its sign gives the gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu(x, slope)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return grad_y * (ctx.slope + (1 - ctx.slope) * y.sign().clamp(min=0)), None


def max_pool2(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 2)`, ties included: the first of equal values, row by row, gets the whole gradient."""
    if not in_compiled_code():
        return F.max_pool2d(x, 2)
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    x = _Maximum.apply(x[..., ::2], x[..., 1::2])
    return _Maximum.apply(x[..., ::2, :], x[..., 1::2, :])


class _Maximum(torch.autograd.Function):
    """`torch.maximum(a, b)`, but where both are equal `a` gets the whole gradient; no index or mask is stored."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        grad_b = grad_y * (b - a).sign().clamp(min=0)
        return grad_y - grad_b, grad_b


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.instance_norm(x, weight=weight, bias=bias)` of (B,C,...) over all positions, with (C,) weight and bias.

    Compiled code gets the operation written out, so that Inductor fuses it with its neighbors in any memory format; its
    result is at least float32.
    """
    if not in_compiled_code():
        return F.instance_norm(x, weight=weight, bias=bias, eps=EPSILON)
    return _InstanceNorm.apply(x, *(p.view(-1, *(1,) * (x.ndim - 2)) for p in (weight, bias)))


class _InstanceNorm(torch.autograd.Function):
    """(B,C,...) with weight and bias (C,1,...) -> float32 or better. It saves `x` in the dtype it came in."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = _mean_and_variance(at_least_float32(x))
        inverse_std = (variance + EPSILON).rsqrt()
        ctx.save_for_backward(x, mean, inverse_std, weight)
        return (at_least_float32(x) - mean) * materialize(inverse_std * weight) + bias

    @staticmethod
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, inverse_std, weight = ctx.saved_tensors
        centered = at_least_float32(x) - mean
        # With z = (x - mean) / std: grad_x = weight / std * (grad_y - mean(grad_y) - z * mean(grad_y * z)).
        grad_bias = _rows(grad_y).sum(3).sum(2).view_as(mean)  # of each sample
        grad_weight = _rows(grad_y * centered).sum(3).sum(2).view_as(mean) * inverse_std
        per_position = 1 / x.shape[2:].numel()
        slope = materialize(grad_weight * inverse_std * per_position)
        grad_x = (grad_y - materialize(grad_bias * per_position) - centered * slope) * materialize(inverse_std * weight)
        return grad_x.to(x.dtype), grad_weight.sum(0), grad_bias.sum(0)


def _rows(x: Tensor) -> Tensor:
    """(B,C,...) -> (B,C,R,S): on a CPU the positions as R rows of at most 64, on other devices as a single row.

    A row stays in the cache until its second sum is done, and there are enough rows for every thread.
    """
    positions = x.flatten(2)
    count = positions.shape[2]
    length = next(n for n in (64, 32, 16, 8, 4, 2, 1) if count % n == 0) if x.device.type == "cpu" else count
    return positions.unflatten(2, (count // length, length))


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over each channel's positions: (B,C,...) -> two of (B,C,1,...).

    The variance is the one within rows plus the one between rows, so that nothing cancels (Chan, Golub and LeVeque,
    1983).
    """
    rows = _rows(x)
    row_mean = rows.sum(3) * (1 / rows.shape[3])
    row_variance = (rows - row_mean.unsqueeze(3)).square().sum(3) * (1 / rows.shape[3])
    mean = row_mean.sum(2, keepdim=True) * (1 / rows.shape[2])
    variance = (row_variance + (row_mean - mean).square()).sum(2) * (1 / rows.shape[2])
    shape = (*x.shape[:2], *(1,) * (x.ndim - 2))
    return mean.view(shape), variance.view(shape)


def materialize(x: Tensor) -> Tensor:
    """`x`, computed and stored once in compiled CPU code.

    Inductor inlines pointwise producers: it would repeat their work for each element of a larger result. A reduction
    over a dummy axis, too long to be unrolled, forces one stored result.
    """
    return x.unsqueeze(-1).expand(*x.shape, 16).amax(-1) if x.device.type == "cpu" else x


def conv2d_shared_input(conv: nn.Conv2d, shared: Tensor, own: Tensor) -> Tensor:
    """`conv(torch.cat((shared.repeat(k, 1, 1, 1), own), dim=1))`, for k branches stacked along the batch.

    On CUDA, channels of zeros fill up their number to a multiple of 8, which Tensor Cores need: 39 channels take twice
    as long as 40 in channels_last. Code compiled for a CPU convolves the channels (B,S,H,W) that all branches share
    only once, and adds the result to that of each branch's own channels (k*B,C,H,W). The forms round differently.
    """
    repeated = shared.repeat(own.shape[0] // shared.shape[0], 1, 1, 1)
    if own.device.type == "cuda":
        missing = -conv.in_channels % 8
        zeros = own.new_zeros(len(own), missing, *own.shape[2:])
        weight = F.pad(conv.weight, (0, 0, 0, 0, 0, missing))
        return F.conv2d(torch.cat((repeated, own, zeros), dim=1), weight, conv.bias, conv.stride, conv.padding)
    if not in_compiled_code():
        return conv(torch.cat((repeated, own), dim=1))
    shared_weight, own_weight = conv.weight.split((shared.shape[1], own.shape[1]), dim=1)
    shared_out = F.conv2d(shared, shared_weight, conv.bias, conv.stride, conv.padding)
    own_out = F.conv2d(own, own_weight, None, conv.stride, conv.padding)
    return (own_out.unflatten(0, (-1, len(shared))) + shared_out).flatten(0, 1)


def sum_of_up_convolutions(a: Tensor, up_a: nn.ConvTranspose2d, b: Tensor, up_b: nn.ConvTranspose2d) -> Tensor:
    """`up_a(a) + up_b(b)` for two transposed 3x3 convolutions of stride 2: (B,C1,H,W), (B,C2,H,W) -> (B,out,2H,2W).

    Compiled code does both as one convolution of all channels, which writes half as much. The two forms round
    differently.
    """
    if not in_compiled_code():
        return up_convolution(a, up_a.weight, up_a.bias) + up_convolution(b, up_b.weight, up_b.bias)
    return up_convolution(torch.cat((a, b), dim=1), torch.cat((up_a.weight, up_b.weight)), up_a.bias + up_b.bias)


def up_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)`.

    (B,in,H,W), (in,out,3,3) and (out,) -> (B,out,2H,2W).
    """
    if x.device.type != "cpu" or _only_plain_forms:
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    # cast here, because autocast does not reach the backward pass, whose tensors must have one dtype
    return _UpConvolution.apply(x.to(dtype), weight.to(dtype), bias.to(dtype))


class _UpConvolution(torch.autograd.Function):
    """Transposed convolution whose weight gradient is computed as that of its adjoint, the convolution from output to
    input, which in bfloat16 is up to twelve times as fast on CPUs.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = F.conv2d(grad_y, weight, stride=2, padding=1)
        grad_weight = nn.grad.conv2d_weight(grad_y, weight.shape, x, stride=2, padding=1)
        return grad_x, grad_weight, grad_y.sum((0, 2, 3))


def must_be_deterministic(device: torch.device) -> bool:
    """Whether --deterministic asks for other kernels here; those of CPUs are deterministic anyway."""
    return device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def reflection_pad(x: Tensor, width: int) -> Tensor:
    """`F.pad(x, (width,) * 4, mode="reflect")`: (B,C,H,W) -> (B,C,H+2*width,W+2*width).

    On CUDA the backward pass of PyTorch's form adds in any order, which --deterministic refuses.
    """
    if not must_be_deterministic(x.device):
        return F.pad(x, (width,) * 4, mode="reflect")
    for dim in (-1, -2):
        length = x.shape[dim]
        before, after = x.narrow(dim, 1, width), x.narrow(dim, length - width - 1, width)
        x = torch.cat((before.flip(dim), x, after.flip(dim)), dim)
    return x


# device -> in which type the backward pass of PyTorch's fused attention is slow
SLOW_IF_FUSED = {"cpu": torch.bfloat16, "cuda": torch.float32}


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`F.scaled_dot_product_attention(q, k, v)`: softmax(q k^T / sqrt(d)) v of (B,heads,N,d) each.

    Matrix products are used in training where PyTorch's fused form is slow: in bfloat16 on a CPU (its backward pass
    takes 1.5 times as long for N = 1024, 10 times for N = 128), and in float32 on CUDA, where it took 19 of the
    155 ms of a DeepFashion step in TF32 on an H200: it is optimized for half precision.
    """
    if q.dtype == SLOW_IF_FUSED.get(q.device.type) and torch.is_grad_enabled():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)
