"""Code paths of their own that compiled networks and the CPU get, against torch's own operations; and that compiled
networks follow their weights.

What acts only while compiling is called here as plain Python (`as_compiled`), where float64 and ties can be looked at.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from data.keypoints import draw_heat_maps
from inference.pose_transfer import PoseTransfer
from models import create_model
from models.base_model import BaseModel
from models.blocks import FirstDownBlock, InstanceNorm, UpBlock, UpConvolution, _InstanceNorm, _LeakyReLU, leaky_relu
from models.cpu_compile import can_compile_ahead
from models.dptn_model import Part
from models.losses import MaxPool2, ReLU, _Maximum, mean_absolute
from models.pose_transformer import attention
from tests.conftest import CPU, NO_VGG, TINY, TINY_G, compiles, random_batch, test_options, train_options

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
def test_leaky_relu(as_compiled, slope, dtype):
    x = torch.cat((whole_numbers(50), noise(50), torch.tensor([-0.0, 1e-30, -1e-30]))).to(dtype)
    theirs = F.relu if slope == 0 else lambda x: F.leaky_relu(x, slope)
    result, gradient = with_gradients(lambda x: leaky_relu(x, slope), x)
    wanted, wanted_gradient = with_gradients(theirs, x)
    assert_equal([result], [wanted])
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-6 if dtype == torch.float32 else 1e-15  # the slope has one
    assert_equal([gradient], [wanted_gradient], rtol=rounding, atol=0)
    if slope == 0:
        assert_equal(with_gradients(ReLU(), x), with_gradients(F.relu, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(6, 8), (7, 6), (5, 9), (2, 3)])
def test_max_pooling(as_compiled, size, dtype):
    """The first of equal values, row by row, gets the gradient; the last row or column of an odd number gets none."""
    for layout in (torch.contiguous_format, torch.channels_last):
        x = whole_numbers(2, 3, *size).to(dtype).contiguous(memory_format=layout)
        assert_equal(with_gradients(MaxPool2(), x), with_gradients(lambda x: F.max_pool2d(x, 2), x))


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (3, 4, 16, 24), (3, 4, 9)], ids=["2d", "rows", "1d"])
def test_instance_norm(as_compiled, shape):
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


def test_instance_norm_far_from_zero(as_compiled):
    """The variance is not a difference of two large numbers."""
    x = (1000 + noise(2, 3, 16, 16)).float()
    wanted = F.instance_norm(x.double())
    torch.testing.assert_close(InstanceNorm(3)(x).double(), wanted, rtol=0, atol=1e-3)


def test_instance_norm_as_it_was():
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


def test_gradients_against_finite_differences():
    """Also by their second argument, and where only some inputs need one."""
    a, b = noise(2, 3, 4), noise(2, 3, 4, seed=2)
    for function, inputs in (
        (lambda x: _LeakyReLU.apply(x, 0.1), (a,)),
        (_Maximum.apply, (a, b)),
        (_InstanceNorm.apply, (a, noise(3, 1), noise(3, 1, seed=3))),
        (lambda x: _InstanceNorm.apply(x, torch.ones(3, 1).double(), torch.zeros(3, 1).double()), (a,)),
    ):
        assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs])


def both_up_convolutions(dtype: torch.dtype = torch.float64) -> tuple[UpConvolution, nn.ConvTranspose2d]:
    theirs = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1).to(dtype)
    ours = UpConvolution(6, 4).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def run_module(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Result, gradients of input, weight and bias."""
    return [*with_gradients(module, x), *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_up_convolution(layout):
    torch.manual_seed(0)
    x = noise(2, 6, 5, 3).contiguous(memory_format=layout)
    ours, theirs = (run_module(module.to(memory_format=layout), x) for module in both_up_convolutions())
    assert_equal(ours, theirs, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(both_up_convolutions()[0], [x.requires_grad_()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_up_convolution_under_autocast(dtype):
    """bfloat16 as torch's has it: the same result, parameters' gradients in float32, all within bf16's rounding."""
    torch.manual_seed(0)
    x = noise(2, 6, 8, 4).to(dtype)

    def autocast(module: nn.Module):
        def run(x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return module(x)

        run.parameters = module.parameters
        return run

    ours, theirs = (run_module(autocast(module), x) for module in both_up_convolutions(torch.float32))
    assert ours[0].dtype == torch.bfloat16
    assert_equal(ours[:1], theirs[:1])
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() < 2**-7 * b.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype):
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
def test_shared_input_channels_are_convolved_once(branches, monkeypatch):
    torch.manual_seed(0)
    block = FirstDownBlock(9, 4, InstanceNorm).double()
    shared, own = noise(2, 5, 8, 12), noise(2 * branches, 4, 8, 12, seed=1)

    def at_once(own: Tensor, shared: Tensor, *_weights: Tensor) -> Tensor:
        return block(torch.cat((shared.repeat(branches, 1, 1, 1), own), dim=1))

    results = []
    for function, compiling in ((lambda own, shared: block(own, shared), True), (at_once, False)):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        block.zero_grad()
        results.append([*with_gradients(function, own, shared), *(p.grad for p in block.parameters())])
    assert_equal(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", [InstanceNorm, nn.BatchNorm2d])
def test_both_paths_up_are_one_convolution(norm, monkeypatch):
    torch.manual_seed(0)
    block = UpBlock(6, 4, norm).double()
    x = noise(2, 6, 5, 3)
    results = []
    for compiling in (True, False):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        block.zero_grad()
        results.append(run_module(block, x))
    assert_equal(*results, rtol=1e-9, atol=1e-10)


def test_mean_absolute():
    """A million float32 differences each, in either memory order, to a few last bits."""
    a, b = noise(2, 16, 256, 256).float(), noise(2, 16, 256, 256, seed=1).float()
    wanted = (a.double() - b.double()).abs().flatten(1).mean(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        mean = mean_absolute(a.contiguous(memory_format=layout), b.contiguous(memory_format=layout))
        torch.testing.assert_close(mean.double(), wanted, rtol=1e-6, atol=0)


def trained_one_step(*flags: str) -> BaseModel:
    torch.manual_seed(0)
    model = create_model(train_options(*TINY, *flags), CPU, is_train=True)
    model.set_input(random_batch())
    model.optimize_parameters()
    return model


@compiles
def test_a_compiled_training_step():
    """Losses, images and all gradients of generator and VGG19 terms are those of the plain step."""
    ours, theirs = trained_one_step("--compile"), trained_one_step("--no-compile")
    assert ours.get_current_losses() == pytest.approx(theirs.get_current_losses(), rel=1e-4)
    torch.testing.assert_close(ours.fake_target, theirs.fake_target, rtol=0, atol=1e-5)
    largest = max(p.grad.norm() for p in theirs.net_G.parameters())
    for (name, a), b in zip(ours.net_G.named_parameters(), theirs.net_G.parameters(), strict=True):
        # some are 0 but for rounding, which the network amplifies: the first convolution sums in another order, and
        # its gradient differs by 2.0 % with torch 2.4; a wrong graph would differ by its own size
        assert (a.grad - b.grad).norm() < 3e-2 * b.grad.norm() + 1e-5 * largest, name


SMALLEST = [*TINY_G, "--num_blocks=0", "--num_CABs=0"]


def save_weights(folder: Path, epoch: int) -> None:
    torch.manual_seed(epoch)
    flags = ("--init_type=kaiming", f"--checkpoints_dir={folder}")
    model = create_model(train_options(*TINY, *SMALLEST, *NO_VGG, *flags), CPU, is_train=True)
    model.save_networks(epoch, ["G"])


def transfer(folder: Path, epoch: int, *flags: str) -> PoseTransfer:
    flags = ("--dataset_mode=market", "--batchSize=3", f"--checkpoints_dir={folder}", f"--which_epoch={epoch}", *flags)
    return PoseTransfer(test_options(*SMALLEST, *flags), CPU)


def images(model: BaseModel, batch: dict) -> Tensor:
    model.set_input(batch)
    return model.test()


@compiles
@pytest.mark.parametrize("ahead", [True, False])
def test_weights_in_compiled_code(ahead, tmp_path, monkeypatch):
    """They are constants there: other weights are taken at once, and several networks in one process keep their own.
    The last batch is filled up, not compiled anew. Also where torch cannot compile ahead of time."""
    if not ahead:
        monkeypatch.setattr("models.base_model.can_compile_ahead", lambda: False)
    batch = random_batch(3, 128, 64)
    for epoch in (1, 2):
        save_weights(tmp_path, epoch)
    wanted = [images(transfer(tmp_path, epoch).model, batch) for epoch in (1, 2)]
    assert (wanted[0] - wanted[1]).abs().mean() > 0.1

    def assert_near(image: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)

    first = transfer(tmp_path, 1, "--compile")
    assert_near(images(first.model, batch), wanted[0])
    graphs = counters["stats"]["unique_graphs"]
    last = {key: value[1:2] for key, value in batch.items()}
    assert torch.equal(first.generate(last), first.generate(batch)[1:2])
    assert counters["stats"]["unique_graphs"] == graphs
    assert [len(compiled.libraries) for compiled in first.model.ahead] == [1] * (ahead and can_compile_ahead())

    first.model.load_networks(first.model.run_dir, "2")
    assert_near(images(first.model, batch), wanted[1])
    second = transfer(tmp_path, 1, "--compile")
    assert_near(images(second.model, batch), wanted[0])
    assert_near(images(first.model, batch), wanted[1])


@compiles
def test_training_weights_are_not_constants():
    """Not even without a graph, as in the discriminator's step with --accumulate, and not where a network that only
    draws was compiled before."""
    create_model(test_options(*SMALLEST, "--compile"), CPU, is_train=False)
    model = create_model(train_options(*TINY, *SMALLEST, *NO_VGG, "--compile"), CPU, is_train=True)
    model.set_input(random_batch())
    for _ in range(2):
        with torch.no_grad():
            model.forward(model.parts[0], reconstruct_source=False)
            wanted, _ = model.net_G(*generator_input(model.parts[0]))
            torch.testing.assert_close(model.fake_target, wanted, rtol=0, atol=1e-4)
            for parameter in model.net_G.parameters():
                parameter.mul_(1.5)


def generator_input(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    size = part.source_image.shape[-2:]
    poses = (draw_heat_maps(keypoints, size) for keypoints in (part.source_keypoints, part.target_keypoints))
    return part.source_image, *poses
