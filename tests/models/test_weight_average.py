"""--ema: the average follows its formula, is saved, resumed and tested, and leaves the training as it is."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models import create_model
from models.weight_average import WeightAverage
from tests.helpers import COMMON, CPU, NO_VGG, TINY, random_batch, train_flags, train_options
from util.checkpoint import load_state


def test_average_follows_its_formula():
    net = nn.BatchNorm1d(3)
    ema = WeightAverage(net, 0.9)
    expected = net.weight.detach().double().clone()
    for step in range(4):
        with torch.no_grad():
            net.weight.add_(step + 1.0)
            net.running_mean.add_(0.5)
        net.num_batches_tracked += 1
        ema.update()
        expected = 0.9 * expected + 0.1 * net.weight.detach().double()
    assert torch.allclose(ema.average.weight.double(), expected, atol=1e-6)
    assert torch.equal(ema.average.running_mean, net.running_mean)
    assert ema.average.num_batches_tracked == 4
    assert not ema.average.weight.requires_grad


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_step_moves_the_average_once_and_training_does_not_see_it(accumulate):
    models = []
    for ema in ("0.9", "0"):
        torch.manual_seed(0)
        flags = (*TINY, *NO_VGG, "--lr=0.01", f"--ema={ema}", f"--accumulate={accumulate}")
        models.append(create_model(train_options(*flags), CPU, is_train=True))
    averaged, plain = models
    wanted = [p.detach().double().clone() for p in averaged.net_G.parameters()]
    for _ in range(3):
        for model in models:
            model.set_input(random_batch(2, 32, 16))
            model.optimize_parameters()
        wanted = [0.9 * w + 0.1 * p.detach().double() for w, p in zip(wanted, averaged.net_G.parameters())]
    for average, weight in zip(averaged.ema.average.parameters(), wanted):
        assert torch.allclose(average.double(), weight, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(averaged.net_G.parameters(), plain.net_G.parameters()))
    assert plain.ema is None


def test_average_is_saved_resumed_exactly_and_tested(run, market):
    flags = train_flags(market, "--ema=0.5", "--niter=1", "--niter_decay=1")
    run("train", *flags, "--name=whole")
    with pytest.raises(SystemExit):  # after one step
        run("train", *flags, "--name=parts", "--max_minutes=0")
    run("train", "--name=parts", "--continue_train", "--gpu_ids=-1")
    whole, parts = (torch.load(f"checkpoints/{name}/ema_net_G.pth", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    latest = torch.load("checkpoints/whole/latest_net_G.pth", weights_only=True)
    assert latest.keys() == whole.keys()
    assert not all(torch.equal(latest[key], whole[key]) for key in whole)
    assert "ema" in load_state(Path("checkpoints/whole/latest_state.pt"))["model"]
    run("test", *COMMON, "--name=whole", f"--dataroot={market}", "--which_epoch=ema")
    assert list(Path("results").glob("*_vis.jpg"))


def test_average_starts_from_pretrained_weights(run, market):
    run("train", *train_flags(market), "--name=a")
    model = create_model(train_options(*train_flags(market, "--ema=0.9")), CPU, is_train=True)
    model.load_initial_weights("checkpoints/a")
    assert all(torch.equal(a, b) for a, b in zip(model.ema.average.parameters(), model.net_G.parameters()))
