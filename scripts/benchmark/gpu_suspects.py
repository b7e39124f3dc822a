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
from scripts.benchmark.measure import median_seconds, seconds
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


def with_backward(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    inputs = tuple(x.requires_grad_() for x in inputs)
    grad = torch.randn_like(function(*inputs))

    def run() -> None:
        torch.autograd.grad(function(*inputs), inputs, grad)

    return run


def adam(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 4: one step of Adam on weights of the generator's number, and the difference after ten."""
    shapes = [(256, 256, 3, 3)] * (2 if quick else 14) + [(256, 256)] * 20 + [(256,)] * 100
    after = {}
    for name, flags in {"foreach": {"foreach": True}, "fused": {"fused": True}}.items():
        torch.manual_seed(0)
        weights = [torch.randn(shape, device=device).requires_grad_() for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer = torch.optim.Adam(weights, lr=2e-4, betas=(0.5, 0.999), **flags)
        for _ in range(10):
            optimizer.step()
        after[name] = torch.cat([weight.detach().flatten() for weight in weights])
        difference = (after[name] - after["foreach"]).abs().max().item()
        yield {
            "suspect": 4,
            "what": f"Adam, {name}",
            "ms": milliseconds(optimizer.step, device),
            "difference": difference,
        }


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


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias, eps=ops.EPSILON)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], weight.to(x.dtype), bias.to(x.dtype), ops.EPSILON)


def written_out(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops._InstanceNorm.apply(x, weight.view(-1, 1, 1), bias.view(-1, 1, 1)).to(x.dtype)


def instance_norms(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 6: forms of instance norm at the first and the last width of a DeepFashion step of 32 pairs."""
    for shape in ((2, 4, 16, 8),) if quick else ((64, 64, 128, 128), (64, 256, 32, 32)):
        for dtype in (torch.float32, torch.bfloat16):
            for layout, memory_format in LAYOUTS.items():
                forms = {"F.instance_norm": plain, "F.group_norm": group_norm, "few kernels": few_kernels}
                if device.type == "cuda" and dtype == torch.bfloat16:
                    forms["written out, compiled"] = torch.compile(written_out, dynamic=False)
                for name, form in forms.items():
                    x = torch.randn(shape, device=device).to(dtype, memory_format=memory_format)
                    weight, bias = torch.ones(shape[1], device=device), torch.zeros(shape[1], device=device)
                    what = f"{name}, {tuple(shape)}, {str(dtype)[6:]}, {layout}"
                    yield {"suspect": 6, "what": what, "ms": milliseconds(with_backward(form, x, weight, bias), device)}


def convolutions(device: torch.device, quick: bool) -> Iterator[Row]:
    """Suspect 8: convolutions of few channels in a DeepFashion step of 32 pairs, plain and filled up with zeros."""
    batch, side = (1, 32) if quick else (64, 256)
    use_precision("tf32" if device.type == "cuda" else "fp32", device)
    for (name, case), dtype, layout in product(CONVOLUTIONS.items(), (torch.float32, torch.bfloat16), LAYOUTS):
        for inputs, outputs in case.channels:
            shapes = (batch, inputs, side, side), (outputs, inputs, case.kernel, case.kernel)
            x, weight = (torch.randn(s, device=device).to(dtype, memory_format=LAYOUTS[layout]) for s in shapes)
            x.requires_grad_(case.input_learns)
            weight.requires_grad_(case.weight_learns)
            convolve = partial(F.conv2d, x, weight, None, case.stride, 1)
            learned = [tensor for tensor in (x, weight) if tensor.requires_grad]
            grad = torch.randn_like(convolve())

            def run(convolve=convolve, learned=learned, grad=grad) -> None:
                torch.autograd.grad(convolve(), learned, grad)

            what = f"{name}, {inputs} to {outputs} channels, {str(dtype)[6:]}, {layout}"
            yield {"suspect": 8, "what": what, "ms": milliseconds(run, device)}


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
    on_gpu = device.type == "cuda"
    for mode, precision in product(
        ("market",) if quick else ("fashion", "market"), ("bf16", "tf32") if on_gpu else ("fp32",)
    ):
        for name in (
            "channels_last, instance norm of few kernels",
            "contiguous, VGG19 and discriminator channels_last",
        ):
            everything_last = name.startswith("channels_last")
            flags = [f"--precision={precision}", "--channels_last" if everything_last else "--no-channels_last",
                     "--init_type=normal", *(TINY_TRAINING if quick else [])]  # fmt: skip
            model = build("training", mode, flags, device)
            if not everything_last:
                for net in (model.vgg, model.net_D):
                    net.to(memory_format=torch.channels_last)
            norm = few_kernels if everything_last else ops.instance_norm
            with patch.object(ops, "instance_norm", norm):
                run = one_call(model, random_batch(1 if quick else 32, mode))
                ms = milliseconds(run, device, 5)
            yield {"suspect": 6, "what": f"step, {mode}, {precision}, {name}", "ms": ms}
            del model, run
            if on_gpu:
                torch.cuda.empty_cache()
