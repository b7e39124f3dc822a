"""scripts/demo_plan.py: the width and the schedule that fit a machine's speed, as flags that train.py accepts."""

import shlex

import pytest
import torch

from models.networks import linear_decay
from options.train_options import TrainOptions
from scripts import demo_plan
from scripts.demo_plan import choose_width, falling_rate, plan_longer, schedule
from tests.helpers import make_market


@pytest.mark.parametrize(
    ("pairs", "chosen", "tried"),
    [
        ({16: 900}, 16, [16]),  # too slow for the next width, which is not even tried
        ({16: 4000, 32: 2400}, 16, [16, 32]),
        ({16: 5900, 32: 2600}, 32, [16, 32]),
        ({16: 9000, 32: 6100, 64: 2000}, 32, [16, 32, 64]),
        ({16: 90000, 32: 40000, 64: 12000}, 64, [16, 32, 64]),
    ],
)
def test_choose_width_takes_the_widest_that_sees_enough_pairs(pairs, chosen, tried):
    calls = []
    assert choose_width(lambda width: calls.append(width) or pairs[width]) == (chosen, pairs[chosen])
    assert calls == tried


@pytest.mark.parametrize(
    ("pairs", "epochs", "size"), [(4800, 5, 960), (300, 3, 100), (1400, 3, 467), (96_000, 100, 960), (1, 3, 4)]
)
def test_schedule_has_epochs_for_the_rate_to_fall_in(pairs, epochs, size):
    assert schedule(pairs, available=960) == (epochs, size)


@pytest.mark.parametrize(("done", "epochs"), [(0, 3), (0, 5), (4, 6), (5, 1)])
def test_rate_is_full_at_first_and_lowest_in_the_last_epoch(done, epochs):
    niter, niter_decay = (int(flag.partition("=")[2]) for flag in falling_rate(done, epochs))
    assert niter + niter_decay == done + epochs
    parameter = torch.nn.Parameter(torch.zeros(1))
    factor = linear_decay(torch.optim.Adam([parameter]), niter, niter_decay).lr_lambdas[0]
    rates = [factor(epoch) for epoch in range(done, done + epochs)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1 / (niter_decay + 1))
    assert epochs < 3 or rates[0] == 1


def test_new_plan_is_flags_that_train_accepts(call, tmp_path, monkeypatch):
    market = make_market(tmp_path / "market")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_plan, "seconds_per_pair", lambda flags: 0.5)
    done = call(demo_plan, "--name=demo", f"--dataroot={market}", "--minutes=1")
    assert done.returncode == 0, done.stderr
    opt = TrainOptions().parse(["--name=demo", *shlex.split(done.stdout)])
    assert (opt.ngf, opt.dataroot, opt.dataset_mode) == (16, str(market), "market")
    assert (opt.lambda_content, opt.lambda_style) == (0, 0)  # no VGG19, nothing to download
    steps = opt.max_dataset_size * (opt.niter + opt.niter_decay) / opt.batchSize
    assert opt.ema == pytest.approx(1 - 7 / steps, abs=1e-4)
    assert opt.max_dataset_size * (opt.niter + opt.niter_decay) == pytest.approx(0.85 * 60 / 0.5, abs=8)


def test_longer_plan_continues_after_the_epochs_that_are_done(monkeypatch):
    monkeypatch.setattr(demo_plan, "seconds_per_pair", lambda flags: 0.1)
    options = {"dataroot": "d", "ngf": 32, "precision": "fp32", "max_dataset_size": 100}
    flags = plan_longer({"options": options, "progress": {"epoch": 8}}, seconds=60)
    assert flags == ["--continue_train", "--niter=9", "--niter_decay=4"]  # 7 are done, 6 follow


@pytest.mark.slow
def test_seconds_per_pair_trains_real_steps(tmp_path, monkeypatch):
    market = make_market(tmp_path / "market")
    monkeypatch.chdir(tmp_path)
    flags = ["--name=demo_plan", *demo_plan.FLAGS, f"--dataroot={market}", "--ngf=16", "--gpu_id=-1"]
    assert 0.001 < demo_plan.seconds_per_pair(flags) < 60
    assert not (tmp_path / "checkpoints").exists()
