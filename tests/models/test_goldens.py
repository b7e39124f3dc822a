"""The numbers of the published implementation (tests/goldens), and an independent second implementation.

Two kinds of proof. The goldens were computed in float32 on another processor. Where the network does not amplify
rounding (fake_source, discriminator, losses, VGG) they are met to 2e-5 or better. The transformer with formula weights
amplifies: moving the weights by half a unit in their last place moves fake_target by 4e-5 and gradient norms by up to
1e-3 even in float64, and the goldens themselves lie 2.5e-4 and 8e-3 from the float64 result. So what the goldens
cannot decide about batching, attention and gradients, `tests/reference.py` decides in float64, to 1e-9.
"""

import numpy as np
import pytest
import torch

from data.keypoints import draw_heat_maps, scale_keypoints
from models.losses import GAN_MODES, GANLoss, content_and_style
from models.published_weights import to_published
from tests import reference
from tests.conftest import GOLDENS, OFFICIAL_KEYS, formula_model, set_formula_input
from tests.formula import formula_array, formula_images

SETTINGS = {
    "fashion": (64, 64, []),
    "market": (64, 32, ["--dis_layers=3", "--lambda_g=5", "--lambda_rec=2", "--t_s_ratio=0.8"]),
}
SIZES = [(2, 64, 64), (1, 128, 64)]


def differences(ours: torch.Tensor, golden: np.ndarray) -> np.ndarray:
    return np.abs(ours.detach().double().numpy() - golden)


def generate(model, n: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> None:
    set_formula_input(model, n, h, w, dtype)
    with torch.no_grad():
        model.forward()


def poses(batch) -> list[torch.Tensor]:
    """Source and target heat maps in the precision of the images."""
    size = batch.source_image.shape[-2:]
    return [draw_heat_maps(k, size).to(batch.source_image) for k in (batch.source_keypoints, batch.target_keypoints)]


def test_parameter_counts():
    for flags, wanted in ((["--dis_layers=4"], 664_577), (["--dis_layer=3"], 238_209)):
        model = formula_model(*flags)
        assert sum(p.numel() for p in model.net_G.parameters()) == 9_794_371
        assert sum(p.numel() for p in model.net_D.parameters()) == wanted


@pytest.mark.parametrize("layout", ["--no-channels_last", "--channels_last"])
def test_generator_outputs(layout):
    model = formula_model(layout)
    for n, h, w in SIZES:
        generate(model, n, h, w)
        source = differences(model.fake_source, GOLDENS[f"G_{n}x{h}x{w}_source"])
        target = differences(model.fake_target, GOLDENS[f"G_{n}x{h}x{w}_target"])
        # the other memory order sums in another order than the goldens did
        slack = 1 if layout == "--no-channels_last" else 3
        assert source.max() < slack * 2e-5
        assert target.mean() < slack * 2e-5
        assert target.max() < slack * 3e-4


def test_generator_outputs_in_float64():
    model = formula_model()
    model.net_G.double()
    for n, h, w in SIZES:
        generate(model, n, h, w, torch.float64)
        assert differences(model.fake_source, GOLDENS[f"G_{n}x{h}x{w}_source"]).max() < 2e-5
        assert differences(model.fake_target, GOLDENS[f"G_{n}x{h}x{w}_target"]).mean() < 3e-5
        assert differences(model.fake_target, GOLDENS[f"G_{n}x{h}x{w}_target"]).max() < 3e-4


@pytest.mark.parametrize("layout", ["--no-channels_last", "--channels_last"])
def test_bf16(layout):
    """bfloat16 rounds 2^16 times coarser than float32, whose mean errors here are 6e-7 (fake_source) and 1e-5
    (fake_target). Were all of it rounded, 0.04 and 0.65 would be the price; accumulation, instance norm, the output and
    the losses stay in float32, so half of that is the bound (measured: 0.007 and 0.15). Losses: 1 % (measured: 0.6 %).
    """
    model = formula_model(layout, "--precision=bf16")
    for n, h, w in SIZES:
        generate(model, n, h, w)
        assert model.fake_target.dtype == torch.float32
        assert differences(model.fake_source, GOLDENS[f"G_{n}x{h}x{w}_source"]).mean() < 0.02
        assert differences(model.fake_target, GOLDENS[f"G_{n}x{h}x{w}_target"]).mean() < 0.3
    set_formula_input(model, 2, 64, 64)
    model.optimize_parameters()
    losses = model.get_current_losses()
    ours = [losses[name] for name in GOLDENS["train_loss_names"]]
    np.testing.assert_allclose(ours, GOLDENS["train_fashion_losses"][0], rtol=1e-2)


def test_generator_equals_the_second_implementation():
    """Batched branches, fused attention and the key table, against the plain reference: outputs and all gradients."""
    model = formula_model()
    model.net_G.double()
    weights = {
        key: torch.from_numpy(formula_array(OFFICIAL_KEYS["generator_aliases"].get(key, key), shape)).double()
        for key, shape in OFFICIAL_KEYS["generator"]
    }
    for key, first in OFFICIAL_KEYS["generator_aliases"].items():
        weights[key] = weights[first]
    for tensor in weights.values():
        tensor.requires_grad_()
    batch = set_formula_input(model, 2, 64, 64, torch.float64)
    model.forward()
    wanted = reference.generator(weights, batch.source_image, *poses(batch))
    probe = torch.from_numpy(formula_images("probe", (2, 3, 64, 64))).double()
    for ours, theirs in zip((model.fake_target, model.fake_source), wanted):
        assert (ours - theirs).abs().max() < 1e-9
        (ours * probe).sum().backward(retain_graph=True)
        (theirs * probe).sum().backward(retain_graph=True)

    gradients = to_published({key: p.grad for key, p in model.net_G.named_parameters()})
    assert set(gradients) == set(weights)
    for key, gradient in gradients.items():
        theirs = weights[key].grad
        assert (gradient - theirs).norm() <= 1e-9 * theirs.norm() + 1e-9, key


def test_discriminator_outputs():
    images = torch.from_numpy(formula_images("real", (2, 3, 64, 64)))
    for layers in (3, 4):
        net = formula_model(f"--dis_layers={layers}").net_D
        with torch.no_grad():
            golden = GOLDENS[f"D{layers}_eval"]
            assert differences(net.eval()(images), golden).max() < 2e-5 * np.abs(golden).max()
            net.train()
            for which in ("1st", "2nd"):  # one power iteration each
                assert differences(net(images), GOLDENS[f"D{layers}_train_{which}"]).max() < 2e-5


def test_vgg_content_and_style():
    vgg = formula_model().vgg
    a, b = (torch.from_numpy(formula_images(name, (2, 3, 64, 64))) for name in ("vgg_a", "vgg_b"))
    content, style = content_and_style(vgg, a, b)
    np.testing.assert_allclose([content.mean(), style.mean()], GOLDENS["vgg_content_style"], rtol=1e-5)


@pytest.mark.parametrize("mode", GAN_MODES)
def test_gan_losses(mode):
    scores = torch.from_numpy(formula_array("pred", (2, 1, 4, 4)))
    loss = GANLoss(mode)
    ours = [loss.discriminator_real(scores), loss.discriminator_fake(scores), loss.generator(scores)]
    np.testing.assert_allclose(ours, GOLDENS[f"ganloss_{mode}"], rtol=1e-6, atol=1e-7)


def test_heat_maps():
    keypoints = torch.from_numpy(GOLDENS["heatmap_keypoints_yx"]).float()
    keypoints[(keypoints == -1).any(-1)] = torch.nan
    maps = draw_heat_maps(scale_keypoints(keypoints, (256, 176), (256, 256))[None], (256, 256))[0]
    np.testing.assert_allclose(maps.sum((1, 2)), GOLDENS["heatmap_sum_per_joint"], rtol=1e-6)
    for joint, (y, x) in enumerate(GOLDENS["heatmap_argmax_yx"]):
        assert maps[joint].any() if y >= 0 else not maps[joint].any()
        assert y < 0 or maps[joint].argmax() == y * 256 + x
    # each 32nd row and column, bit by bit, but for what is too small to matter
    golden = GOLDENS["heatmap_joint_rows"]
    assert np.array_equal(maps[:, ::32, ::32], np.where(golden < 2.0**-100, 0, golden))


def test_heat_maps_without_tiny_values_draw_the_same_image(monkeypatch):
    """Published maps go on to the smallest denormal number, 2^-149; ours end at 2^-100."""
    model = formula_model()
    images, maps = [], []

    def endless(keypoints: torch.Tensor, size: tuple[int, int], _: torch.dtype) -> list[torch.Tensor]:
        centers = keypoints.nan_to_num(1e6).double().unsqueeze(1).unbind(-1)
        distances = [torch.arange(n).view(-1, 1) - center for n, center in zip(size, centers)]
        return [torch.exp(-d.square() / 72) for d in distances]

    def product(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        maps.append((rows.unsqueeze(2) * columns.unsqueeze(1)).float().permute(0, 3, 1, 2))
        return maps[-1]

    generate(model, 1, 128, 64)
    images.append(model.fake_target)
    monkeypatch.setattr("models.dptn_model.heat_map_factors", endless)
    monkeypatch.setattr("models.dptn_model.multiply_factors", product)
    generate(model, 1, 128, 64)
    images.append(model.fake_target)
    ours = poses(set_formula_input(model, 1, 128, 64))[1]
    assert 0 < maps[1][maps[1] != ours].max() < 2.0**-100
    assert maps[1][maps[1] > 0].min() < 2.0**-120
    assert torch.equal(*images)


def published(model, name: str) -> dict[str, torch.nn.Parameter]:
    """Parameters of a network by published name."""
    return to_published(dict(model.nets[name].named_parameters()))


def in_dtype(model, dtype: torch.dtype) -> None:
    for module in (*model.nets.values(), model.vgg):
        module.to(dtype)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_training_steps(setting, precision):
    """Three real steps: D and G losses, gradients, Adam, spectral norm's three power iterations a step."""
    h, w, flags = SETTINGS[setting]
    model = formula_model("--no-channels_last", *flags)
    in_dtype(model, getattr(torch, precision))
    set_formula_input(model, 2, h, w, getattr(torch, precision))
    golden = {key.removeprefix(f"train_{setting}_"): GOLDENS[key] for key in GOLDENS if f"_{setting}_" in key}
    for step, tolerance in enumerate((1e-5, 1e-2, 5e-2)):
        model.optimize_parameters()
        losses = model.get_current_losses()
        ours = [losses[name] for name in GOLDENS["train_loss_names"]]
        np.testing.assert_allclose(ours, golden["losses"][step], rtol=tolerance)
        if step == 0:
            g = [published(model, "G")[key].grad for key in GOLDENS["train_watch"]]
            d = [published(model, "D")[key].grad for key in GOLDENS["train_watch_D"]]
            np.testing.assert_allclose([x.norm().item() for x in d], golden["D_grad_norms_step1"], rtol=1e-4)
            np.testing.assert_allclose([x.norm().item() for x in g], golden["G_grad_norms_step1"], rtol=1e-2)
            for gradient, first8 in zip(g, golden["G_grad_first8_step1"]):
                ours = gradient.contiguous().flatten()[:8]
                assert differences(ours, first8).max() < 0.15 * np.abs(first8).max()
    for net, names in (("G", "train_watch"), ("D", "train_watch_D")):
        sums = [published(model, net)[key].double().abs().sum().item() for key in GOLDENS[names]]
        np.testing.assert_allclose(sums, golden[f"{net}_abs_sums"], rtol=1e-4)


@pytest.mark.parametrize("setting", SETTINGS)
def test_training_steps_equal_the_second_implementation(setting):
    """In float64, where no rounding blurs the comparison: losses, gradients and weights of three steps."""
    h, w, flags = SETTINGS[setting]
    model = formula_model(*flags)
    in_dtype(model, torch.float64)
    batch = set_formula_input(model, 2, h, w, torch.float64)
    opt = model.opt
    g, d = ({k: v.detach().clone() for k, v in to_published(model.nets[n].state_dict()).items()} for n in "GD")
    for alias, first in OFFICIAL_KEYS["generator_aliases"].items():
        g[alias] = g[first]
    lambdas = {name: getattr(opt, f"lambda_{name}") for name in ("rec", "content", "style", "g")}
    trainer = reference.Trainer(g, d, model.vgg.state_dict(), opt.dis_layers, lambdas, opt.t_s_ratio)
    for _ in range(3):
        theirs = trainer.step(batch.source_image, batch.target_image, *poses(batch))
        model.optimize_parameters()
        ours = model.get_current_losses()
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-7), name
    for key, parameter in published(model, "D").items():
        assert torch.allclose(parameter, dict(trainer.d.named_parameters())[key], rtol=1e-7, atol=1e-9), key
    for key, parameter in published(model, "G").items():
        moved = (parameter - trainer.g[key]).abs()  # a true gradient of 0 gives Adam noise to divide by noise
        assert moved.median() < 1e-9 or key.endswith("bias"), key
