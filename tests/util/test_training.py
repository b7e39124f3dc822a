"""What can happen during training: non-finite losses and weights, broken photos; and its progress bar."""

import re
import sys
from pathlib import Path

import pytest
import torch

import train as train_command
from data.pairs import read_pairs
from models.dptn_model import DPTNModel
from tests.conftest import LOSS_NAMES, train_flags
from util.checkpoint import load_state
from util.errors import UserError


def test_non_finite_loss_stops_the_run(run, market, monkeypatch):
    """It stops before it saves, so the last good training state and weights stay."""
    original, done = DPTNModel.optimize_parameters, [0]

    def optimize(self):
        done[0] += 1
        if done[0] == 5:  # the third step of the second epoch
            with torch.no_grad():
                self.net_G.decoder.output.conv.bias.fill_(float("nan"))
        original(self)

    monkeypatch.setattr(DPTNModel, "optimize_parameters", optimize)
    with pytest.raises(UserError, match="non-finite loss in the step that ends at 10 samples") as caught:
        run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
    message = str(caught.value)
    assert all(name in message for name in LOSS_NAMES)
    assert message.count(".jpg") == 4
    state = load_state(Path("checkpoints/a/latest_state.pt"))
    assert state["progress"]["total"] == 8
    for tensor in torch.load("checkpoints/a/latest_net_G.pth", weights_only=True).values():
        assert torch.isfinite(tensor).all()


def test_non_finite_gradient_stops_the_run_before_a_save(run, market, monkeypatch):
    """The loss is finite, but its gradient is not."""
    original, done = DPTNModel.step, [0]

    def step(self, name, *more):
        done[0] += 1
        if done[0] == 8:  # the generator's in the fourth step
            self.net_G.decoder.output.conv.bias.grad[0] = float("inf")
        original(self, name, *more)

    monkeypatch.setattr(DPTNModel, "step", step)
    with pytest.raises(UserError, match="network G has NaN or infinite weights"):
        run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
    assert load_state(Path("checkpoints/a/latest_state.pt"))["progress"]["total"] == 6
    assert torch.isfinite(torch.load("checkpoints/a/latest_net_G.pth", weights_only=True)["outconv.conv1.bias"]).all()


def test_photo_that_breaks_during_the_run_is_one_line(run, call, market):
    run("train", *train_flags(market), "--name=a")
    victim = read_pairs(market / "market-pairs-train.csv")[3].source
    path = market / "train" / victim
    path.write_bytes(path.read_bytes()[:-300])
    done = call(train_command, "--name=a", "--continue_train", "--niter=5", "--nThreads=2")
    assert done.returncode == 2
    assert f"{victim}: photo cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_without_a_terminal_shows_no_bar(run, call, market):
    done = call(train_command, *train_flags(market), "--name=a", "--print_freq=3")
    assert done.returncode == 0
    assert "sample/s" not in done.stderr
    assert done.stdout.count("total iters:") == 4


def test_progress_bar_shows_data_and_step_time(run, market, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run("train", *train_flags(market), "--name=a")
    bar = capsys.readouterr().err
    assert re.search(r"epoch 2/2: 100%.*8/8|epoch 2/2:.*6/6.*sample.*data \d\.\d{3} s, step \d\.\d{3} s", bar)
