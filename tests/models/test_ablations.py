"""Networks and training steps without one of the method's parts: each constructs, trains, and computes what it says."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import create_model
from models.dptn_model import Batch, DPTNModel
from models.losses import l1_per_sample
from models.pose_transformer import PoseTransformerModule
from options.test_options import TestOptions
from tests.helpers import CPU, LOSS_NAMES, NO_VGG, TINY, random_batch, train_flags, train_options
from util.image import from_uint8

NO_PTM = ["--num_CABs=0", "--num_TTBs=0"]
CABS_ONLY = ["--num_CABs=1", "--num_TTBs=0"]


def tiny_model(*flags: str) -> DPTNModel:
    torch.manual_seed(0)
    return create_model(train_options(*TINY, "--init_type=kaiming", *flags), CPU, is_train=True)


def in_float64(model: DPTNModel) -> DPTNModel:
    """The model with a batch of 64 x 32 images, all in float64."""
    for net in (*model.nets.values(), *([model.vgg] if model.vgg is not None else [])):
        net.double()
    batch = random_batch()
    model.batch = Batch(
        from_uint8(batch["source_image"]).double(), batch["source_keypoints"].double(),
        batch["target_keypoints"].double(), from_uint8(batch["target_image"]).double(),
    )  # fmt: skip
    return model


def gradients_of_a_step(model: DPTNModel) -> dict[str, Tensor]:
    model.optimize_parameters()
    return {name: p.grad for name, p in model.net_G.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("flags", [[], NO_VGG, ["--accumulate=2"], ["--norm=batch", *NO_VGG]], ids=" ".join)
def test_step_without_the_dual_task_equals_the_plain_step_whose_source_losses_weigh_nothing(flags):
    alone = in_float64(tiny_model(*flags, "--t_s_ratio=1"))
    both = in_float64(tiny_model(*flags, "--t_s_ratio=0.5"))
    both.task_shares = {name: float(name.endswith("_t")) for name in both.task_shares}
    wanted, got = gradients_of_a_step(both), gradients_of_a_step(alone)
    assert got.keys() == wanted.keys()
    largest = max(gradient.abs().max() for gradient in wanted.values())
    assert largest > 0
    for name, gradient in got.items():
        assert (gradient - wanted[name]).abs().max() < 1e-12 * largest, name


def test_step_without_the_dual_task_neither_decodes_nor_logs_the_source(monkeypatch):
    model = create_model(train_options(*TINY, "--t_s_ratio=1"), CPU, is_train=True)
    decoded = []
    model.net_G.decoder.register_forward_hook(lambda _net, inputs, _out: decoded.append(len(inputs[0])))
    model.set_input(random_batch(2))
    model.optimize_parameters()
    assert decoded == [2]  # samples: with the source-to-source branch it would be 4
    assert model.fake_source is None
    assert list(model.get_current_losses()) == [name for name in LOSS_NAMES if name.endswith("_t")]
    assert "fake_source" not in model.visual_names
    assert [len(row) for row in model.get_current_visuals()] == [len(model.visual_names)] * 2


def test_affinity_loss_without_the_dual_task_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        train_options("--model=DPTNTA", "--t_s_ratio=1")
    assert end.value.code == 2
    assert "--lambda_affi needs the VGG19 features of the source image" in capsys.readouterr().err
    model = tiny_model("--model=DPTNTA", "--t_s_ratio=1", "--lambda_affi=0")
    model.set_input(random_batch(1))  # a single sample has no second half
    model.optimize_parameters()
    assert model.get_current_losses()["affi_gen_t"] == 0
    assert model.get_current_losses()["style_gen_t"] > 0


def test_generator_without_ptm_decodes_f_st():
    """f_st goes to the decoder as it is, without the last norm."""
    net = tiny_model(*NO_VGG, *NO_PTM).net_G
    source, pose, target = torch.randn(2, 3, 32, 16), *torch.rand(2, 2, 18, 32, 16)
    seen = {}
    net.encoder.register_forward_hook(lambda _net, _inputs, out: seen.update(encoder=out))
    net.decoder.register_forward_hook(lambda _net, inputs, _out: seen.update(decoder=inputs[0]))
    net(source, pose, target)
    f_st = seen["encoder"].chunk(2)[1]
    assert torch.equal(seen["decoder"], f_st)


def test_ptm_without_ttbs_is_self_attention_of_f_st():
    """The CABs, then the last norm, on f_st; neither f_ss nor the values matter."""
    torch.manual_seed(0)
    ptm = PoseTransformerModule(8, heads=2, num_cabs=2, num_ttbs=0, norm=nn.InstanceNorm1d).double()
    f_ss, f_st, f_s = torch.randn(3, 2, 8, 4, 3).double()
    tokens = f_st.flatten(2).transpose(1, 2)
    for cab in ptm.cabs:
        tokens = cab(tokens)
    normalized = tokens - tokens.mean(1, keepdim=True)
    normalized = normalized / (normalized.square().mean(1, keepdim=True) + 1e-5).sqrt()
    wanted = normalized.transpose(1, 2).reshape(2, 8, 4, 3)
    assert torch.allclose(ptm(f_ss, f_st, f_s), wanted, atol=1e-10)
    assert torch.equal(ptm(f_ss, f_st, f_s), ptm(f_s, f_st, f_ss))


@pytest.mark.parametrize(("name", "runs_source_encoder"), [("f_s", True), ("f_ss", False)])
def test_ptm_values_come_from_the_named_features(name, runs_source_encoder):
    net = tiny_model(*NO_VGG, f"--ptm_values={name}").net_G
    seen = {}
    net.encoder.register_forward_hook(lambda _net, _inputs, out: seen.update(f_ss=out.chunk(2)[0]))
    net.source_encoder.register_forward_hook(lambda _net, _inputs, out: seen.update(f_s=out))
    net.ptm.register_forward_hook(lambda _net, inputs, _out: seen.update(values=inputs[2]))
    net(torch.randn(2, 3, 32, 16), *torch.rand(2, 2, 18, 32, 16))
    assert ("f_s" in seen) == runs_source_encoder
    assert torch.equal(seen["values"], seen[name])


def test_number_of_heads_changes_the_image_and_not_the_weights():
    images, sizes = [], []
    for heads in (1, 2):
        model = tiny_model(*NO_VGG, f"--nhead={heads}")
        model.set_input(random_batch())
        images.append(model.test())
        sizes.append({key: tensor.shape for key, tensor in model.net_G.state_dict().items()})
    assert not torch.allclose(*images)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "flags", [NO_PTM, CABS_ONLY, ["--ptm_values=f_ss"], ["--nhead=1"], ["--t_s_ratio=1"], [*NO_PTM, "--t_s_ratio=1"]],
    ids=" ".join,
)  # fmt: skip
def test_ablated_model_learns_and_test_py_finds_its_network(run, market, flags):
    """test.py gets the sizes from train_opt.json alone, and generates what the trained network does."""
    run("train", *train_flags(market, *flags), "--name=a")
    model_flags = ["--name=a", "--gpu_ids=-1", "--dataset_mode=market"]
    opt = TestOptions().parse(model_flags)
    stored = json.loads(Path("checkpoints/a/train_opt.json").read_text())["options"]
    network = ("ngf", "layers_g", "num_blocks", "nhead", "num_CABs", "num_TTBs", "ptm_values")
    assert {name: getattr(opt, name) for name in network} == {name: stored[name] for name in network}
    model = create_model(opt, CPU, is_train=False)
    model.load_networks("checkpoints/a", "latest")
    batch = random_batch(2, 128, 64)
    model.set_input(batch)
    image = model.test()
    trained = create_model(train_options(*train_flags(market, *flags)), CPU, is_train=True)
    trained.load_networks("checkpoints/a", "latest")
    trained.set_input(batch)
    assert torch.equal(trained.test(), image)
    assert image.std() > 0


def test_ablated_step_lowers_the_loss():
    for flags in (NO_PTM, CABS_ONLY, ["--ptm_values=f_ss"], ["--t_s_ratio=1"]):
        torch.manual_seed(0)
        model = create_model(train_options(*TINY, *NO_VGG, "--lr=0.004", *flags), CPU, is_train=True)
        batch = random_batch(2, 32, 16)
        model.set_input({k: v // 8 + 200 if k.endswith("image") else v for k, v in batch.items()})
        model.optimize_parameters()
        before = l1_per_sample(model.fake_target, model.batch.target_image).mean()
        for _ in range(19):
            model.optimize_parameters()
        after = l1_per_sample(model.fake_target, model.batch.target_image).mean()
        assert after < 0.8 * before, flags
