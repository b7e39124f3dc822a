"""What the goldens do not cover of DPTNModel: other modes, precision, compilation, the order of a training step."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from models import create_model
from models.dptn_model import DPTNModel
from models.losses import GAN_MODES
from tests.helpers import CPU, NO_VGG, TINY, TINY_G, compiles, cut_vgg, random_batch, test_options, train_options


def learn(*flags: str, steps: int = 20) -> tuple[dict[str, float], dict[str, float]]:
    """Losses of the first and the last of some steps on one batch of bright, flat 32 x 16 images."""
    torch.manual_seed(0)
    model = create_model(train_options(*TINY, "--lr=0.004", *flags), CPU, is_train=True)
    if model.vgg is not None:
        cut_vgg(model)
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
        *([f"--gan_mode={mode}", *NO_VGG] for mode in GAN_MODES),
        ["--norm=batch", *NO_VGG],
        pytest.param(["--precision=bf16"], marks=pytest.mark.slow),  # VGG19 without bf16 instructions
        ["--channels_last"],
        ["--precision=bf16", "--channels_last", "--gan_mode=wgangp", "--norm=batch", *NO_VGG],
        *([f"--init_type={name}", *NO_VGG] for name in ("normal", "xavier", "kaiming")),
    ],
    ids=lambda flags: flags[0],
)
def test_training_learns_in_every_mode(flags):
    first, last = learn(*flags)
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]
    assert last["app_gen_s"] < 0.8 * first["app_gen_s"]


@compiles
@pytest.mark.slow
def test_compiled_bf16_training_learns():
    first, last = learn("--compile", "--precision=bf16", "--layers_g=1", "--num_blocks=0", "--num_CABs=0", *NO_VGG)
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]


def test_vgg_without_its_losses_is_not_loaded():
    first, last = learn(*NO_VGG, "--vgg_weights=/nowhere.pth")
    assert first["content_gen_t"] == first["style_gen_s"] == 0
    assert last["app_gen_t"] < 0.8 * first["app_gen_t"]


@pytest.mark.slow
def test_bf16_images_are_near_fp32():
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


def test_inference_equals_the_training_branch_and_ignores_the_batch():
    """Without the reconstruction the image is the same, and one image is the same alone as in a batch."""
    model = create_model(test_options(*TINY_G), CPU, is_train=False)
    batch = random_batch(3)
    model.set_input(batch)
    together = model.test()
    model.forward()
    assert torch.allclose(together, model.fake_target, atol=1e-6)
    model.set_input({key: value[1:2] for key, value in batch.items()})
    assert torch.allclose(model.test(), together[1:2], atol=1e-5)


def test_training_step_makes_three_power_iterations():
    model = create_model(train_options(*TINY), CPU, is_train=True)
    conv = model.net_D.first.conv1
    matrix, u = conv.weight_orig.detach().flatten(1).double().clone(), conv.weight_u.double().clone()
    for group in model.optimizers["D"].param_groups:
        group["lr"] = 0.0  # the weight stays, so the iterations can be followed
    model.set_input(random_batch())
    model.optimize_parameters()
    for _ in range(3):
        u = nn.functional.normalize(matrix @ nn.functional.normalize(matrix.t() @ u, dim=0), dim=0)
    assert torch.allclose(conv.weight_u.double(), u, atol=1e-5)


def test_frozen_layers_of_a_discriminator_stay_as_they_are(monkeypatch):
    class MyModel(DPTNModel):
        @staticmethod
        def define_D(opt):
            net = DPTNModel.define_D(opt)
            net.first.requires_grad_(False)
            return net

    monkeypatch.setattr("models.find_model", lambda _name: MyModel)
    model = create_model(train_options(*TINY, *NO_VGG), CPU, is_train=True)
    before = deepcopy(dict(model.net_D.named_parameters()))
    model.set_input(random_batch(2, 32, 16))
    model.optimize_parameters()
    changed = {name.split(".")[0] for name, p in model.net_D.named_parameters() if not torch.equal(p, before[name])}
    assert "first" not in changed
    assert "blocks" in changed


@pytest.mark.parametrize("flag", ["--channels_last", "--no-channels_last"])
def test_moments_of_a_checkpoint_get_the_memory_format_of_the_weights(flag):
    """Fused Adam on CUDA refuses others."""
    other = {"--channels_last": "--no-channels_last", "--no-channels_last": "--channels_last"}[flag]
    models = [create_model(train_options(*TINY, *NO_VGG, f), CPU, is_train=True) for f in (flag, other)]
    models[0].set_input(random_batch(2, 32, 16))
    models[0].optimize_parameters()
    models[1].load_state_dict(deepcopy(models[0].state_dict()))
    for name, optimizer in models[1].optimizers.items():
        saved = models[0].optimizers[name]
        for group, saved_group in zip(optimizer.param_groups, saved.param_groups):
            for p, saved_p in zip(group["params"], saved_group["params"]):
                for key in ("exp_avg", "exp_avg_sq"):
                    assert optimizer.state[p][key].stride() == p.stride()
                    assert torch.equal(optimizer.state[p][key], saved.state[saved_p][key])


def test_generator_step_leaves_no_gradient_in_the_discriminator():
    model = create_model(train_options(*TINY), CPU, is_train=True)
    model.set_input(random_batch())
    model.optimize_parameters()
    gradients = {name: p.grad.clone() for name, p in model.net_D.named_parameters()}
    model.forward()
    model.backward_G()  # the discriminator is frozen, as `optimize_parameters` left it
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.net_D.named_parameters())
    assert all(p.grad is not None for p in model.net_G.parameters())


@pytest.mark.parametrize("flags", [[], ["--gan_mode=wgangp", "--num_TTBs=0"]], ids=" ".join)
def test_accumulated_steps_on_one_batch_equal_plain_steps(flags):
    """Two steps after one `set_input`: the batch stays whole. Without TTBs a part of the network gets no gradient.

    WGAN-GP mixes each sample at random: with all mixtures at 1/2 both ways see the same.
    """
    losses = []
    for accumulate in (1, 2):
        torch.manual_seed(0)
        model = create_model(train_options(*TINY, *NO_VGG, f"--accumulate={accumulate}", *flags), CPU, is_train=True)
        model.set_input(random_batch(4))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *size, device: torch.full(size, 0.5))
            for _ in range(2):
                model.optimize_parameters()
        assert len(model.batch.source_image) == 4
        losses.append(model.get_current_losses())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)


class OneConvolution(nn.Module):
    """A generator with the arguments and results of DPTN's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3 + 2 * 18, 3, 1)

    def forward(self, image, source_pose, target_pose, reconstruct_source=False):
        poses = (target_pose, source_pose) if reconstruct_source else (target_pose,)
        images = [self.convolution(torch.cat((image, source_pose, pose), 1)).tanh().float() for pose in poses]
        return images[0], images[1] if reconstruct_source else None


class OtherGeneratorModel(DPTNModel):
    @staticmethod
    def define_G(opt):
        return OneConvolution()


def test_subclass_with_another_generator_trains_is_saved_and_tested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = OtherGeneratorModel(train_options(*TINY, *NO_VGG, "--accumulate=2", "--ema=0.9"), CPU, is_train=True)
    model.set_input(random_batch())
    for _ in range(2):
        model.optimize_parameters()
    state = deepcopy(model.state_dict())
    model.save_networks("latest")
    tested = OtherGeneratorModel(test_options(*TINY_G), CPU, is_train=False)
    tested.load_networks(model.run_dir, "latest")
    tested.set_input(random_batch())
    assert torch.equal(tested.test(), model.test())
    model.optimize_parameters()
    assert not torch.equal(tested.test(), model.test())
    model.load_state_dict(state)
    assert torch.equal(tested.test(), model.test())


def test_update_learning_rate_returns_the_rates_that_changed():
    flags = ("--niter=2", "--niter_decay=3", "--lr=0.0004", "--ratio_g2d=0.5")
    model = create_model(train_options(*TINY, *NO_VGG, *flags), CPU, is_train=True)
    lines = [model.update_learning_rate() for _ in range(3)]
    assert lines == [
        "",
        "learning rates: G 0.0004 -> 0.0003, D 0.0002 -> 0.00015",
        "learning rates: G 0.0003 -> 0.0002, D 0.00015 -> 0.0001",
    ]
