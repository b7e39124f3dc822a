"""scripts/ablation.py: the numbers of its table by hand, and runs from start to end."""

import time

import numpy as np
import pandas as pd
import pytest

from scripts import ablation
from tests.helpers import TINY, train_options
from util.errors import UserError

PAIRS = [("a.jpg", "b.jpg"), ("b.jpg", "a.jpg"), ("c.jpg", "d.jpg")]


def write_scores(out, name, seed, values):
    """A csv as the evaluation writes it, with the same `values` for each metric."""
    file = ablation.scores_file(out, name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(PAIRS, columns=["source", "target"])
    for metric in ablation.COMPARED_METRICS:
        table[f"standard:{metric}"] = values
    written = file.with_suffix(".new")
    table.to_csv(written, index=False)
    written.rename(file)  # at once: another thread may read it


def test_table_has_means_spreads_and_paired_differences(tmp_path):
    full = {0: [1.0, 2.0, 3.0], 1: [2.0, 2.0, 5.0]}
    other = {0: [2.0, 2.5, 3.0], 1: [2.5, 1.0, 6.0]}
    for seed in (0, 1):
        write_scores(tmp_path, "full", seed, full[seed])
        write_scores(tmp_path, "no_ptm", seed, other[seed])
    settings = ["full", "no_ptm"]
    table = ablation.compare(ablation.read_scores(tmp_path, settings, [0, 1, 2]), settings)
    changes = [np.mean(np.subtract(other[seed], full[seed])) for seed in (0, 1)]
    row = table.loc["psnr", "no_ptm"]
    assert row["seeds"] == 2
    assert row["mean"] == pytest.approx(np.mean([2.5, 9.5 / 3]))
    assert row["spread"] == pytest.approx(np.std([2.5, 9.5 / 3], ddof=1))
    assert row["difference"] == pytest.approx(np.mean(changes))
    assert row["spread of difference"] == pytest.approx(np.std(changes, ddof=1))
    assert row["pairs better"] == pytest.approx(4 / 6)
    assert table.loc["l1", "no_ptm"]["pairs better"] == pytest.approx(1 / 6)  # less is better
    assert table.loc["psnr", "full"]["difference"] == 0


def test_table_compares_equal_seeds_only(tmp_path):
    """A seed that the first setting lacks counts in the mean, not in the difference."""
    write_scores(tmp_path, "full", 0, [1.0, 1.0, 1.0])
    write_scores(tmp_path, "no_ptm", 0, [2.0, 2.0, 2.0])
    write_scores(tmp_path, "no_ptm", 1, [9.0, 9.0, 9.0])
    settings = ["full", "no_ptm"]
    row = ablation.compare(ablation.read_scores(tmp_path, settings, [0, 1]), settings).loc["psnr", "no_ptm"]
    assert (row["mean"], row["difference"]) == (5.5, 1.0)


def test_other_training_in_the_same_folder_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "call", lambda _arguments, what, jobs: pytest.fail(what))
    ablation.check_same_training(tmp_path, ["--ngf=4"])  # whose first run could not start
    ablation.check_same_training(tmp_path, ["--ngf=8"])
    (tmp_path / "runs").mkdir()
    ablation.check_same_training(tmp_path, ["--ngf=8"])
    done = call(ablation, "--out", tmp_path, "--", "--ngf=16")
    assert done.returncode == 2
    assert "holds runs of another training; choose another --out" in done.stderr


def test_time_limit_of_runs_is_refused(call, tmp_path):
    for flags in (["--max_minutes=5"], ["--max_minutes", "5"]):
        done = call(ablation, "--out", tmp_path, "--", *flags)
        assert done.returncode == 2
        assert "--max_minutes would count unfinished runs as finished" in done.stderr


def test_run_that_fails_does_not_stop_the_others(call, tmp_path, monkeypatch):
    def train_and_test(args, name, seed, *_):
        time.sleep(0.2 * (name == "full"))  # others end before the one that they are compared with
        if name == "no_ptm":
            raise UserError(f"{name}_{seed}: train.py ended with status 1")

    def evaluate(args, name, seed):
        write_scores(args.out, name, seed, [1.0, 2.0, 3.0])

    monkeypatch.setattr(ablation, "train_and_test", train_and_test)
    monkeypatch.setattr(ablation, "evaluate", evaluate)
    done = call(
        ablation, "--out", tmp_path, "--settings", "full", "no_ptm", "one_head", "--seeds", "0", "1", "--jobs", "3"
    )
    assert done.returncode == 2
    assert "no_ptm_0: train.py ended with status 1" in done.stderr
    assert "2 of 6 runs failed; start this command again to resume them" in done.stderr
    table = pd.read_csv(tmp_path / "ablation.csv")
    assert set(table["setting"]) == {"full", "one_head"}


@pytest.mark.parametrize("name", ablation.SETTINGS)
def test_setting_has_flags_that_train_py_takes(name):
    opt = train_options("--dataset_mode=market", *ablation.TRAINING, *ablation.SETTINGS[name].train)
    assert opt.lambda_rec * opt.t_s_ratio == 5  # all settings weigh the target's L1 loss alike
    assert (getattr(opt, "lambda_affi", 0) > 0) == ablation.SETTINGS[name].needs_vgg


@pytest.mark.slow
def test_runs_are_compared_and_not_repeated(command, market, tmp_path):
    flags = ["--settings", "full", "no_ptm", "--seeds", "0", "--dataroot", market, "--out", tmp_path / "out"]
    flags += ["--jobs=2", "--gpu_ids=-1", "--", *TINY[:2], "--niter=0", "--niter_decay=1", "--ndf=8"]
    done = command("scripts/ablation.py", *flags, PYTHONPATH="")  # from another folder
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out/ablation.csv").set_index(["metric", "setting"])
    assert len(table) == 2 * len(ablation.COMPARED_METRICS)
    by_hand = [pd.read_csv(tmp_path / f"out/scores/{name}_0.csv")["standard:l1"].mean() for name in ("full", "no_ptm")]
    assert table.loc["l1", "no_ptm"]["difference"] == pytest.approx(by_hand[1] - by_hand[0])
    assert "without PTM" in (tmp_path / "out/index.html").read_text()
    weights = tmp_path / "out/runs/no_ptm_0/latest_net_G.pth"
    written = weights.stat().st_mtime_ns
    again = command("scripts/ablation.py", *flags)
    assert again.stdout.splitlines() == [f"page: {tmp_path / 'out/index.html'}"]
    assert weights.stat().st_mtime_ns == written
