"""The model's parts that the goldens do not cover: other modes, precision, compilation, schedules, devices' edges."""

import numpy as np
import pytest
import torch
from torch import nn

from models import create_model
from models.losses import GAN_MODES, VGG19Features, gradient_penalty, gram_matrix, load_vgg19
from models.networks import INIT_GAIN, linear_decay
from tests.conftest import CPU, TINY, TINY_G, compiles, formula_model, random_batch, test_options, train_options
from util.device import fast_bf16
from util.errors import UserError


def learn(*flags: str, steps: int = 20) -> tuple[dict[str, float], dict[str, float]]:
    """Losses of the first and the last of some steps on one batch of bright, flat 32 x 16 images."""
    torch.manual_seed(0)
    model = create_model(train_options(*TINY, "--lr=0.004", *flags), CPU, is_train=True)
    before = {key: v.clone() for net in model.nets.values() for key, v in net.state_dict().items()}
    batch = random_batch(2, 32, 16)
    model.set_input({k: v // 8 + 200 if k.endswith("image") else v for k, v in batch.items()})
    history = []
    for _ in range(steps):
        model.optimize_parameters()
        history.append(model.get_current_losses())
    assert all(np.isfinite(list(losses.values())).all() for losses in history)
    moved = [not torch.equal(before[k], v) for net in model.nets.values() for k, v in net.state_dict().items()]
    assert np.mean(moved) > 0.9
    return history[0], history[-1]


@pytest.mark.parametrize(
    "flags",
    [
        *([f"--gan_mode={mode}"] for mode in GAN_MODES),
        ["--norm=batch"],
        ["--precision=bf16"],
        ["--channels_last"],
        ["--precision=bf16", "--channels_last", "--gan_mode=wgangp", "--norm=batch"],
        *([f"--init_type={name}"] for name in ("normal", "xavier", "kaiming")),
    ],
    ids=" ".join,
)
def test_learns(flags):
    first, last = learn(*flags)
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]
    assert last["app_gen_s"] < 0.8 * first["app_gen_s"]


@compiles
@pytest.mark.slow
def test_learns_compiled():
    first, last = learn("--compile", "--precision=bf16")
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]


def test_vgg_is_left_out_where_nothing_needs_it():
    flags = ("--lambda_content=0", "--lambda_style=0", "--vgg_weights=/nowhere.pth")
    first, last = learn(*flags)
    assert first["content_gen_t"] == first["style_gen_s"] == 0
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]


@pytest.mark.slow
def test_bf16_is_near_fp32():
    """Bound: bf16 keeps 8 bits, so a layer rounds by 2^-9 = 0.2 % of its values; the image may differ from fp32's by a
    few such roundings, of the image's own spread. Freshly initialized weights; a mean over the image."""
    images = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = create_model(train_options(f"--precision={precision}", "--init_type=kaiming"), CPU, is_train=True)
        model.net_G.eval()
        model.set_input(random_batch(2, 128, 64))
        images[precision] = model.test()
        assert images[precision].dtype == torch.float32
    difference = (images["bf16"] - images["fp32"]).abs().mean() / images["fp32"].std()
    assert 0 < difference < 0.05


def test_batch_norm_keeps_branch_statistics_apart():
    """One training forward with both branches moves the running mean twice, as two separate forwards do."""
    torch.manual_seed(0)
    model = create_model(train_options(*TINY, "--norm=batch"), CPU, is_train=True)
    model.set_input(random_batch())
    model.forward()
    assert model.net_G.encoder.first.norm.num_batches_tracked == 2
    assert model.net_G.decoder.up[0].norm1.num_batches_tracked == 2
    assert model.net_G.source_encoder.first.norm.num_batches_tracked == 1


def test_inference_equals_the_training_branch():
    """Without the reconstruction the image is the same, and one image is the same alone as in a batch."""
    model = create_model(test_options(*TINY_G), CPU, is_train=False)
    batch = random_batch(3)
    model.set_input(batch)
    together = model.test()
    model.forward()
    assert torch.allclose(together, model.fake_target, atol=1e-6)
    model.set_input({key: value[1:2] for key, value in batch.items()})
    assert torch.allclose(model.test(), together[1:2], atol=1e-5)


def test_three_power_iterations_a_step():
    model = create_model(train_options(*TINY), CPU, is_train=True)
    conv = model.net_D.first.conv1
    matrix, u = conv.weight_orig.detach().flatten(1).double().clone(), conv.weight_u.double().clone()
    model.opt.ratio_g2d = 0.0
    for group in model.optimizers["D"].param_groups:
        group["lr"] = 0.0  # the weight stays, so the iterations can be followed
    model.set_input(random_batch())
    model.optimize_parameters()
    for _ in range(3):
        u = nn.functional.normalize(matrix @ nn.functional.normalize(matrix.t() @ u, dim=0), dim=0)
    assert torch.allclose(conv.weight_u.double(), u, atol=1e-5)


def test_generator_step_leaves_the_discriminator_alone():
    model = create_model(train_options(*TINY), CPU, is_train=True)
    model.set_input(random_batch())
    model.optimizers["G"].zero_grad()
    model.optimize_parameters()
    gradients = {name: p.grad.clone() for name, p in model.net_D.named_parameters()}
    model.forward()
    model.net_D.requires_grad_(False)
    model.backward_G()
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.net_D.named_parameters())
    assert all(p.grad is not None for p in model.net_G.parameters())


def test_gradient_penalty_closed_form():
    """A linear critic with gradient g everywhere has the penalty (|g| - 1)^2."""

    class Linear(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image.flatten(1).sum(1)

    real, fake = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    wanted = (2 * np.sqrt(3 * 64) - 1) ** 2
    assert gradient_penalty(Linear(), real, fake).item() == pytest.approx(wanted, rel=1e-5)


def test_gram_matrix():
    features = torch.randn(2, 4, 3, 5)
    wanted = np.einsum("nchw,ndhw->ncd", features, features) / 60
    np.testing.assert_allclose(gram_matrix(features), wanted, rtol=1e-5, atol=1e-6)
    assert gram_matrix(features.bfloat16()).dtype == torch.float32


class TestInitialization:
    @pytest.mark.slow
    def test_generator(self):
        net = create_model(train_options(), CPU, is_train=True).net_G
        weight = net.encoder.residual[0].conv1.weight.flatten(1).double()
        assert torch.allclose(weight @ weight.t(), INIT_GAIN**2 * torch.eye(256).double(), atol=1e-8)
        projection = net.ptm.cabs[0].self_attention.in_proj
        bound = np.sqrt(6 / (256 + 768))  # Xavier-uniform
        assert 0.99 * bound < projection.weight.abs().max() <= bound
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            elif parameter.dim() == 1:
                assert (parameter == 1).all(), name

    def test_discriminator_keeps_torch_defaults_and_zero_biases(self):
        net = create_model(train_options("--init_type=normal"), CPU, is_train=True).net_D
        weight = net.blocks[0].conv1.weight_orig
        bound = np.sqrt(1 / weight[0].numel())
        assert 0.99 * bound < weight.abs().max() <= bound
        assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))


def test_learning_rate_schedule():
    """Factor of epoch e: 1 - max(0, e - niter) / (niter_decay + 1)."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = linear_decay(optimizer, niter=3, niter_decay=4)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, [1, 1, 1, 0.8, 0.6, 0.4, 0.2])


class TestVGGWeights:
    def test_file_with_features_only(self, tmp_path):
        state = {f"features.{k}": v for k, v in load_vgg19("random").features.state_dict().items()}
        torch.save(state, tmp_path / "vgg.pth")
        loaded = load_vgg19(str(tmp_path / "vgg.pth"))
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in state.items())

    def test_random_is_seeded(self):
        before = torch.get_rng_state()
        a, b = (load_vgg19("random").state_dict() for _ in range(2))
        assert all(torch.equal(a[key], b[key]) for key in a)
        torch.manual_seed(1)
        c = load_vgg19("random").state_dict()
        assert all(torch.equal(a[key], c[key]) for key in a)
        torch.set_rng_state(before)

    def test_wrong_file(self, tmp_path):
        torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
        with pytest.raises(UserError, match="not a torchvision vgg19 state dict"):
            load_vgg19(str(tmp_path / "vgg.pth"))
        with pytest.raises(UserError, match="VGG19 weights .* not found"):
            load_vgg19(str(tmp_path / "none.pth"))

    def test_download_that_fails(self, monkeypatch, tmp_path):
        def refuse(*_args, **_kwargs):
            raise OSError("no network")

        monkeypatch.setattr("urllib.request.urlopen", refuse)
        monkeypatch.setattr("torch.hub.urlopen", refuse)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        with pytest.raises(UserError, match="could not fetch its VGG19 weights .*no network"):
            load_vgg19("imagenet")

    def test_imagenet_from_the_cache(self, monkeypatch, tmp_path):
        """A file already under TORCH_HOME is used without a download."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        state = {f"features.{k}": v for k, v in load_vgg19("random").features.state_dict().items()}
        torch.save(state, tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth")
        assert torch.equal(load_vgg19("imagenet").features[0].weight, state["features.0.weight"])

    def test_is_frozen_and_stops_at_relu5_2(self):
        vgg = VGG19Features()
        assert len(vgg.features) == 32
        assert not any(p.requires_grad for p in vgg.parameters())


def test_formula_model_is_deterministic():
    a, b = (formula_model(*TINY_G).net_G.state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("bf16_seconds", "worth_it"), [(0.5, True), (0.9, False), (2.0, False)])
def test_bf16_is_worth_it_where_it_is_measured_faster(monkeypatch, bf16_seconds, worth_it):
    """fp32 takes one second by this clock, after a slow start that does not count."""
    laps = [9.0, *[1.0] * 5, 9.0, *[bf16_seconds] * 5]
    ticks = iter([tick for lap in laps for tick in (0.0, lap)])
    monkeypatch.setattr("util.device.time.perf_counter", lambda: next(ticks))
    assert fast_bf16(CPU, size=4) is worth_it
    assert not fast_bf16(torch.device("mps"))  # never asked there
