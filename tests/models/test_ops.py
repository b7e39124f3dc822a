"""Each operation of models/ops.py against the plain expression that its docstring names.

What acts only while compiling is called here as plain Python (`as_compiled`), where float64 and ties can be looked at.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import FirstDownBlock, InstanceNorm, UpBlock
from models.losses import l1_per_sample
from models.ops import (
    _InstanceNorm,
    _LeakyReLU,
    _Maximum,
    attention,
    in_compiled_code,
    instance_norm,
    leaky_relu,
    max_pool2,
    plain_forms,
    reflection_pad,
    relu,
    up_convolution,
)

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@pytest.fixture
def as_compiled(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def whole_numbers(*shape: int, most: int = 2) -> Tensor:
    """Few values, so that ties and zeros abound."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-most, most + 1, shape, generator=generator).double()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The result and the gradient of each input, for a gradient of the result that differs everywhere."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    result = function(*inputs)
    result.backward(noise(*result.shape, seed=1).to(result.dtype))
    return [result.detach(), *(x.grad for x in inputs)]


def assert_equal(ours: list[Tensor], wanted: list[Tensor], **tolerance: float) -> None:
    """Values and types; to the bit without a tolerance."""
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slope", [0.1, 0.0])
def test_leaky_relu_and_relu_equal_torchs(as_compiled, slope, dtype):
    x = torch.cat((whole_numbers(50), noise(50), torch.tensor([-0.0, 1e-30, -1e-30]))).to(dtype)
    theirs = F.relu if slope == 0 else lambda x: F.leaky_relu(x, slope)
    result, gradient = with_gradients(lambda x: leaky_relu(x, slope), x)
    wanted, wanted_gradient = with_gradients(theirs, x)
    assert_equal([result], [wanted])
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-6 if dtype == torch.float32 else 1e-15  # the slope has one
    assert_equal([gradient], [wanted_gradient], rtol=rounding, atol=0)
    if slope == 0:
        assert_equal(with_gradients(relu, x), with_gradients(F.relu, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(6, 8), (7, 6), (5, 9), (2, 3)])
def test_max_pool2_equals_torchs_with_ties(as_compiled, size, dtype):
    """The first of equal values, row by row, gets the gradient; the last row or column of an odd number gets none."""
    for layout in (torch.contiguous_format, torch.channels_last):
        x = whole_numbers(2, 3, *size).to(dtype).contiguous(memory_format=layout)
        assert_equal(with_gradients(max_pool2, x), with_gradients(lambda x: F.max_pool2d(x, 2), x))


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (3, 4, 16, 24), (3, 4, 9)], ids=["2d", "rows", "1d"])
def test_instance_norm_equals_torchs(as_compiled, shape):
    norm = InstanceNorm(4).double()
    inputs = [3 * noise(*shape) + 20, noise(4), noise(4)]

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    wanted = with_gradients(lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias), *inputs)
    assert_equal(with_gradients(ours, *inputs), wanted, rtol=1e-10, atol=1e-11)
    if len(shape) == 4:
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
        assert_equal(with_gradients(ours, *inputs), wanted, rtol=1e-10, atol=1e-11)
    # of bfloat16 maps: computed and given in float32, the map's gradient rounded once
    half = [inputs[0].bfloat16(), *(p.float() for p in inputs[1:])]
    wanted = with_gradients(
        lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias), *(x.double() for x in half)
    )
    result = with_gradients(ours, *half)
    assert [x.dtype for x in result] == [torch.float32, torch.bfloat16, torch.float32, torch.float32]
    for a, b, rounding in zip(result, wanted, (1e-5, 2**-8, 1e-5, 1e-5)):
        torch.testing.assert_close(a.double(), b, rtol=rounding, atol=2e-5)


def test_instance_norm_far_from_zero_keeps_its_variance(as_compiled):
    """The variance is not a difference of two large numbers."""
    x = (1000 + noise(2, 3, 16, 16)).float()
    wanted = F.instance_norm(x.double())
    torch.testing.assert_close(InstanceNorm(3)(x).double(), wanted, rtol=0, atol=1e-3)


def test_instance_norm_uncompiled_is_torchs():
    """The state dict of torch's own, and its numbers where nothing is compiled."""
    for theirs, shape in (
        (nn.InstanceNorm2d(4, affine=True), (2, 4, 5, 6)),
        (nn.InstanceNorm1d(4, affine=True), (2, 4, 9)),
    ):
        ours = InstanceNorm(4)
        nn.init.normal_(theirs.weight)
        ours.load_state_dict(theirs.state_dict())
        x = noise(*shape).float()
        assert_equal(with_gradients(ours, x), with_gradients(theirs, x))


def test_autograd_functions_match_finite_differences():
    """Also by their second argument, and where only some inputs need one."""
    a, b = noise(2, 3, 4), noise(2, 3, 4, seed=2)
    for function, inputs in (
        (lambda x: _LeakyReLU.apply(x, 0.1), (a,)),
        (_Maximum.apply, (a, b)),
        (_InstanceNorm.apply, (a, noise(3, 1), noise(3, 1, seed=3))),
        (lambda x: _InstanceNorm.apply(x, torch.ones(3, 1).double(), torch.zeros(3, 1).double()), (a,)),
    ):
        assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs])


conv_transpose2d = partial(F.conv_transpose2d, stride=2, padding=1, output_padding=1)


def run_module(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Result, gradients of the input and of all parameters."""
    return [*with_gradients(module, x), *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_up_convolution_equals_conv_transpose2d(layout):
    x, weight = (v.contiguous(memory_format=layout) for v in (noise(2, 6, 5, 3), noise(6, 4, 3, 3, seed=2)))
    inputs = (x, weight, noise(4, seed=3))
    assert_equal(
        with_gradients(up_convolution, *inputs), with_gradients(conv_transpose2d, *inputs), rtol=1e-12, atol=1e-12
    )
    assert torch.autograd.gradcheck(up_convolution, [v.requires_grad_() for v in inputs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_up_convolution_under_autocast_equals_conv_transpose2d(dtype):
    """The result is equal in bfloat16; parameters' gradients come in float32, all within bfloat16's rounding."""
    inputs = (noise(2, 6, 8, 4).to(dtype), 0.1 * noise(6, 4, 3, 3, seed=2).float(), noise(4, seed=3).float())

    def under_autocast(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return function(*inputs)

        return run

    ours, wanted = (with_gradients(under_autocast(f), *inputs) for f in (up_convolution, conv_transpose2d))
    assert ours[0].dtype == torch.bfloat16
    assert_equal(ours[:1], wanted[:1])
    for a, b in zip(ours, wanted, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() < 2**-7 * b.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_equals_the_formula(dtype):
    """bfloat16 training has its own path; values and gradients against the formula in float64."""
    q, k, v = (noise(2, 2, 24, 8, seed=seed).to(dtype) for seed in range(3))

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / 8**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        return torch.einsum("bhnm,bhmd->bhnd", weights, v)

    ours, wanted = with_gradients(attention, q, k, v), with_gradients(formula, *(x.double() for x in (q, k, v)))
    bound = {torch.float64: 1e-8, torch.float32: 1e-6, torch.bfloat16: 2**-6}[dtype]  # torch 2.9: 7e-10 in float64
    for a, b in zip(ours, wanted, strict=True):
        assert a.dtype == dtype
        assert (a - b).norm() < bound * b.norm()
    with torch.no_grad():  # the fused form
        assert (attention(q, k, v) - wanted[0]).norm() < bound * wanted[0].norm()


@pytest.mark.parametrize("branches", [1, 2])
def test_conv2d_shared_input_equals_concatenation(branches, monkeypatch):
    torch.manual_seed(0)
    block = FirstDownBlock(9, 4, InstanceNorm).double()
    shared, own = noise(2, 5, 8, 12), noise(2 * branches, 4, 8, 12, seed=1)

    def concatenated(own: Tensor, shared: Tensor) -> Tensor:
        return block(torch.cat((shared.repeat(branches, 1, 1, 1), own), dim=1))

    results = []
    for function, compiling in ((lambda own, shared: block(shared, own), True), (concatenated, False)):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        block.zero_grad()
        results.append([*with_gradients(function, own, shared), *(p.grad for p in block.parameters())])
    assert_equal(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", [InstanceNorm, nn.BatchNorm2d])
def test_sum_of_up_convolutions_equals_both_apart(norm, monkeypatch):
    torch.manual_seed(0)
    block = UpBlock(6, 4, norm).double()
    x = noise(2, 6, 5, 3)
    results = []
    for compiling in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        block.zero_grad()
        results.append(run_module(block, x))
    assert_equal(*results, rtol=1e-9, atol=1e-10)


def test_l1_per_sample_of_a_million_values_is_accurate():
    """A million float32 differences each, in either memory order, to a few last bits."""
    a, b = noise(2, 16, 256, 256).float(), noise(2, 16, 256, 256, seed=1).float()
    wanted = (a.double() - b.double()).abs().flatten(1).mean(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        mean = l1_per_sample(a.contiguous(memory_format=layout), b.contiguous(memory_format=layout))
        torch.testing.assert_close(mean.double(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [1, 3])
def test_reflection_pad_equals_torchs_in_its_deterministic_form(width, monkeypatch):
    x = noise(2, 3, 5, 4)
    wanted = with_gradients(lambda x: F.pad(x, (width,) * 4, mode="reflect"), x)
    assert_equal(with_gradients(lambda x: reflection_pad(x, width), x), wanted)
    monkeypatch.setattr("models.ops.must_be_deterministic", lambda _: True)
    assert_equal(with_gradients(lambda x: reflection_pad(x, width), x), wanted, rtol=1e-14, atol=1e-15)


def test_plain_forms_are_torchs_own_operations_while_compiling(as_compiled):
    """By the name of the last backward step; outside of the context, and after an error in it, forms are as before."""
    x, channels = noise(2, 3, 4, 4).requires_grad_(), noise(3)
    results = {
        "LeakyReluBackward0": lambda: leaky_relu(x, inplace=False),
        "ReluBackward0": lambda: relu(x),
        "MaxPool2DWithIndicesBackward0": lambda: max_pool2(x),
        "ViewBackward0": lambda: instance_norm(x, channels, channels),  # of F.instance_norm
        "ConvolutionBackward0": lambda: up_convolution(x, noise(3, 2, 3, 3), noise(2)),
    }
    for name, result in results.items():
        assert result().grad_fn.name() != name
        with plain_forms():
            assert result().grad_fn.name() == name
    with pytest.raises(KeyError), plain_forms():
        raise KeyError
    assert in_compiled_code()
