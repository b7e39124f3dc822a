"""Measurements behind single choices of models/ on a CUDA GPU: what each alternative form of an operation costs.

Each row has the number of the suspect in the table that scripts/benchmark/gpu.py writes, what was tried, and
milliseconds (median). Forward and backward passes are timed together.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from data.keypoints import heat_map_factors, multiply_factors
from models import ops
from scripts.benchmark.gpu_report import NO_VGG, TINY_TRAINING, Context, Row
from scripts.benchmark.measure import free_memory, median_seconds, seconds
from scripts.benchmark.networks import build, one_call, random_batch
from util.device import use_precision


class Convolution(NamedTuple):
    kernel: int
    stride: int
    channels: tuple[tuple[int, int], ...]  # inputs and outputs: as they are, then filled up
    input_learns: bool = True  # whether its gradient is computed
    weight_learns: bool = True


CONVOLUTIONS = {
    "first convolution": Convolution(4, 2, ((39, 64), (40, 64)), input_learns=False),
    "last convolution": Convolution(3, 1, ((64, 3), (64, 4), (64, 8))),
    "first of VGG19": Convolution(3, 1, ((3, 64), (4, 64), (8, 64)), weight_learns=False),
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def measure_suspects(context: Context) -> Iterator[Row]:
    """All rows, one at a time."""
    for part in (adam, convolutions, heat_maps, scores, instance_norms, step_variants):
        yield from part(context.device, context.quick)


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The median of a call after three others; on a CPU, where all is a rehearsal, the first call is timed."""
    if device.type == "cpu":
        return 1000 * seconds(call, device)
    for _ in range(3):
        call()
    return 1000 * median_seconds(call, repeats, device)


def milliseconds_with_backward(function: Callable[[], Tensor], inputs: list[Tensor], device: torch.device) -> float:
    for x in inputs:
        x.requires_grad_()
    grad = torch.randn_like(function())
    return milliseconds(lambda: torch.autograd.grad(function(), inputs, grad), device)


def adam(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 4: one step of Adam on weights of the generator's number, and the difference after ten."""
    shapes = [(256, 256, 3, 3)] * (2 if quick else 14) + [(256, 256)] * 20 + [(256,)] * 100
    after = {}
    for name in ("foreach", "fused"):
        torch.manual_seed(0)
        weights = [torch.randn(shape, device=device).requires_grad_() for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer = torch.optim.Adam(weights, lr=2e-4, betas=(0.5, 0.999), **{name: True})
        for _ in range(10):
            optimizer.step()
        after[name] = torch.cat([weight.detach().flatten() for weight in weights])
        difference = (after[name] - after["foreach"]).abs().max().item()
        ms = milliseconds(optimizer.step, device)
        yield {"suspect": 4, "what": f"Adam, {name}", "ms": ms, "difference": difference}


class FewKernelInstanceNorm(torch.autograd.Function):
    """Instance norm of torch operations that keep any memory format, in eager mode."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dims, shape = (2, 3), (1, -1, 1, 1)
        if x.dtype == torch.float32:
            variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        else:
            mean = x.mean(dims, keepdim=True, dtype=torch.float32)
            norm = torch.linalg.vector_norm(x, 2, dims, keepdim=True, dtype=torch.float32)
            variance = norm.square() / x.shape[2:].numel() - mean.square()
        inverse_std = (variance + ops.EPSILON).rsqrt()
        scale = inverse_std * weight.view(shape)
        ctx.save_for_backward(x, mean, inverse_std, weight)
        return torch.addcmul((bias.view(shape) - mean * scale).to(x.dtype), x, scale.to(x.dtype))

    @staticmethod
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, mean, inverse_std, weight = ctx.saved_tensors
        dims, share = (2, 3), 1 / x.shape[2:].numel()
        grad_bias = grad_y.sum(dims, keepdim=True, dtype=torch.float32)
        grad_weight = ((grad_y * x).sum(dims, keepdim=True, dtype=torch.float32) - mean * grad_bias) * inverse_std
        scale = inverse_std * weight.view(1, -1, 1, 1)
        slope = -grad_weight * inverse_std * share * scale
        offset = -grad_bias * share * scale - mean * slope
        grad_x = torch.addcmul(torch.addcmul(offset.to(x.dtype), x, slope.to(x.dtype)), grad_y, scale.to(x.dtype))
        return grad_x, grad_weight.sum((0, 2, 3)), grad_bias.sum((0, 2, 3))


def few_kernels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return FewKernelInstanceNorm.apply(x, weight, bias) if x.ndim == 4 else F.instance_norm(x, None, None, weight, bias)


def written_out(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops._InstanceNorm.apply(x, weight.view(-1, 1, 1), bias.view(-1, 1, 1)).to(x.dtype)


def instance_norms(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 6: forms of instance norm at the first and the last width of a DeepFashion step of 32 pairs."""
    shapes = ((2, 4, 16, 8),) if quick else ((64, 64, 128, 128), (64, 256, 32, 32))
    for shape, dtype, layout in product(shapes, (torch.float32, torch.bfloat16), LAYOUTS):
        forms = {
            "F.instance_norm": lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=ops.EPSILON),
            "F.group_norm": lambda x, w, b: F.group_norm(x, x.shape[1], w.to(x.dtype), b.to(x.dtype), ops.EPSILON),
            "few kernels": few_kernels,
        }
        if device.type == "cuda" and dtype == torch.bfloat16:
            forms["written out, compiled"] = torch.compile(written_out, dynamic=False)
        for name, form in forms.items():
            x = torch.randn(shape, device=device).to(dtype, memory_format=LAYOUTS[layout])
            inputs = [x, torch.ones(shape[1], device=device), torch.zeros(shape[1], device=device)]
            ms = milliseconds_with_backward(partial(form, *inputs), inputs, device)
            yield {"suspect": 6, "what": f"{name}, {tuple(shape)}, {str(dtype)[6:]}, {layout}", "ms": ms}


def convolutions(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 8: convolutions of few channels in a DeepFashion step of 32 pairs, plain and filled up with zeros."""
    batch, side = (1, 32) if quick else (64, 256)
    use_precision("tf32" if device.type == "cuda" else "fp32", device)
    torch.backends.cudnn.benchmark = True  # as in training, where a model sets it
    for (name, case), dtype, layout in product(CONVOLUTIONS.items(), (torch.float32, torch.bfloat16), LAYOUTS):
        for inputs, outputs in case.channels:
            shapes = (batch, inputs, side, side), (outputs, inputs, case.kernel, case.kernel)
            x, weight = (torch.randn(s, device=device).to(dtype, memory_format=LAYOUTS[layout]) for s in shapes)
            learned = [x] * case.input_learns + [weight] * case.weight_learns
            convolve = partial(F.conv2d, x, weight, None, case.stride, 1)
            what = f"{name}, {inputs} to {outputs} channels, {str(dtype)[6:]}, {layout}"
            yield {"suspect": 8, "what": what, "ms": milliseconds_with_backward(convolve, learned, device)}


def heat_maps(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 8: both poses' heat maps of a batch of 32 from factors in float64 and in float32."""
    batch, side = (1, 32) if quick else (32, 256)
    keypoints = torch.randint(0, side, (batch, 18, 2), device=device).float()
    for dtype in (torch.float64, torch.float32):

        def run(dtype: torch.dtype = dtype) -> None:
            for _ in range(2):
                multiply_factors(*heat_map_factors(keypoints, (side, side), dtype))

        yield {"suspect": 8, "what": f"heat maps, {str(dtype)[6:]} factors", "ms": milliseconds(run, device)}


def scores(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 7: three passes of the discriminator (Market-1501, 32 images) with one backward pass."""
    precision = "bf16" if device.type == "cuda" else "fp32"
    flags = [*(TINY_TRAINING if quick else []), f"--precision={precision}", *NO_VGG]
    model = build("training", "market", flags, device)
    images = torch.randn(1 if quick else 32, 3, 128, 64, device=device)

    def run() -> None:
        sum(model.discriminate(images).mean() for _ in range(3)).backward()

    yield {"suspect": 7, "what": "discriminator three times", "ms": milliseconds(run, device)}


def step_variants(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 6: whole training steps of 32 pairs in other memory formats and with another instance norm."""
    modes = ("market",) if quick else ("fashion", "market")
    precisions = ("bf16", "tf32") if device.type == "cuda" else ("fp32",)
    names = ("channels_last, instance norm of few kernels", "contiguous, VGG19 and discriminator channels_last")
    for mode, precision, name in product(modes, precisions, names):
        everything_last = name.startswith("channels_last")
        flags = [f"--precision={precision}", "--channels_last" if everything_last else "--no-channels_last",
                 "--init_type=normal", *(TINY_TRAINING if quick else [])]  # fmt: skip
        model = build("training", mode, flags, device)
        if not everything_last:
            for net in (model.vgg, model.net_D):
                net.to(memory_format=torch.channels_last)
        with patch.object(ops, "instance_norm", few_kernels if everything_last else ops.instance_norm):
            data = random_batch(1 if quick else 32, mode)
            run = one_call(model, {name: x.pin_memory() for name, x in data.items()} if device.type == "cuda" else data)
            ms = milliseconds(run, device, 5)
        yield {"suspect": 6, "what": f"step, {mode}, {precision}, {name}", "ms": ms}
        del model, run
        free_memory(device)
