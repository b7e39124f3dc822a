"""Validation during training: the held-out pairs, their scores, and the best generator."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.pairs import Pair, hold_out, read_pairs
from metrics.fid import Gaussian, frechet_distance
from metrics.validation import Validation
from tests.helpers import CPU, random_batch, train_flags, train_options
from util.checkpoint import load_state
from util.errors import UserError
from util.image import from_uint8


def test_hold_out_keeps_identities_whole():
    pairs = [Pair(f"{p}_a.jpg", f"{p}_{v}.jpg") for p in range(10) for v in "bcd"] + [Pair("1_a.jpg", "2_a.jpg")]
    kept, held = hold_out(pairs, MarketDataset.identity, 7, seed=3)
    people = {MarketDataset.identity(name) for pair in held for name in pair}
    assert len(held) == 9
    assert len(people) == 3
    assert not people & {MarketDataset.identity(name) for pair in kept for name in pair}
    assert hold_out(pairs, MarketDataset.identity, 7, seed=3) == (kept, held)
    assert hold_out(pairs, MarketDataset.identity, 7, seed=4) != (kept, held)
    with pytest.raises(UserError, match="--val_pairs 30: too many for 31 training pairs of 10 identities"):
        hold_out(pairs, MarketDataset.identity, 30, seed=3)


def test_identity_comes_from_the_name():
    assert MarketDataset.identity("0228_c6s3_006817_02.jpg") == "0228"
    outfits = [f"fashionWOMENBlouses_Shirtsid00003372{n}_3back.jpg" for n in ("01", "03")]
    assert {FashionDataset.identity(name) for name in outfits} == {"fashionWOMENBlouses_Shirtsid00003372"}


def test_train_keeps_the_best_generator(run, market):
    flags = train_flags(market, "--niter=4", "--val_pairs=2", "--lr=0.01", "--batchSize=2")
    run("train", *flags, "--name=a")
    held = read_pairs("checkpoints/a/val_pairs.csv")
    assert len(held) >= 2
    log = pd.read_json("checkpoints/a/val_log.jsonl", lines=True)
    assert len(log) == 5
    assert log.ssim[log.is_best].iloc[-1] == log.ssim.max()
    state = load_state(Path("checkpoints/a/latest_state.pt"))
    assert state["progress"]["best"] == pytest.approx(log.ssim.max(), abs=1e-9)
    assert Path("checkpoints/a/best_net_G.pth").exists()


def test_validation_does_not_change_the_training(run, market):
    """Training on the same pairs gives the same weights with and without it."""
    run("train", *train_flags(market, "--val_pairs=2", "--batchSize=2", "--norm=batch"), "--name=a")
    held = set(read_pairs("checkpoints/a/val_pairs.csv"))
    csv = market / "market-pairs-train.csv"
    kept = [pair for pair in read_pairs(csv) if pair not in held]
    people = {name for pair in held for name in pair}
    kept = [pair for pair in kept if not people & set(pair)]
    csv.write_text("\n".join(["from,to", *(",".join(pair) for pair in kept)]) + "\n")
    run("train", *train_flags(market, "--batchSize=2", "--norm=batch"), "--name=b")
    a, b = (torch.load(f"checkpoints/{name}/latest_net_G.pth", weights_only=True) for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


class DullModel:
    """Returns the target with nine tenths of its contrast."""

    def set_input(self, given):
        self.given = given

    def test(self):
        return (from_uint8(self.given["target_image"]) * 0.9).clamp(-1, 1)


def test_validation_equals_scikit_image():
    """On a model that returns known images."""
    batch = random_batch(2)
    values = Validation(train_options(), CPU).scores(DullModel(), [batch])
    rows = []
    for image in batch["target_image"].permute(0, 2, 3, 1).double().numpy():
        fake = np.round((image / 127.5 - 1) * 0.9 * 127.5 + 127.5) / 255
        how = {"channel_axis": 2, "data_range": 1, "gaussian_weights": True, "use_sample_covariance": False}
        ssim = structural_similarity(image / 255, fake, sigma=1.5, **how)
        psnr = peak_signal_noise_ratio(image / 255, fake, data_range=1)
        rows.append((np.abs(image / 255 - fake).mean(), psnr, ssim))
    np.testing.assert_allclose(list(values.values()), np.mean(rows, 0), rtol=1e-3)


@pytest.mark.parametrize(
    ("metric", "best", "better", "worse"),
    [("ssim", 0.5, 0.6, 0.4), ("psnr", 20.0, 21.0, 19.0), ("l1", 0.1, 0.05, 0.2), ("lpips", 0.3, 0.2, 0.4),
     ("fid", 10.0, 9.0, 11.0)],
)  # fmt: skip
def test_better_follows_the_direction_of_the_metric(metric, best, better, worse):
    validation = Validation(train_options(), CPU)
    validation.metric = metric
    assert validation.is_better({metric: best}, None)
    assert [validation.is_better({metric: value}, best) for value in (better, best, worse)] == [True, False, False]


def test_train_keeps_the_generator_with_the_lowest_l1(run, market):
    flags = train_flags(market, "--niter=4", "--val_pairs=2", "--lr=0.01", "--batchSize=2", "--val_metric=l1")
    run("train", *flags, "--name=a")
    log = pd.read_json("checkpoints/a/val_log.jsonl", lines=True)
    assert log.is_best.tolist() == [value < min([np.inf, *log.l1[:row]]) for row, value in enumerate(log.l1)]
    assert load_state(Path("checkpoints/a/latest_state.pt"))["progress"]["best"] == pytest.approx(
        log.l1.min(), abs=1e-9
    )


def test_validation_measures_lpips_and_fid_over_all_batches(monkeypatch):
    """With simple networks in place of the published ones: a mean of distances, and statistics over all batches."""

    def features(images):
        return images.double().mean((2, 3)) / 255

    def distance(fakes, reals):
        return (fakes.float() - reals).abs()[:, 0, 0, 0]

    monkeypatch.setattr("metrics.validation.LPIPS", lambda _weights: Module(distance))
    monkeypatch.setattr("metrics.validation.Inception", lambda _kind, _weights: Module(features))
    batches = [random_batch(2, seed=seed) for seed in range(3)]
    reals = torch.cat([batch["target_image"] for batch in batches])
    fakes = (((reals / 127.5 - 1) * 0.9 + 1) * 127.5).round().byte()
    lpips = Validation(train_options("--val_metric=lpips", "--val_pairs=9"), CPU).scores(DullModel(), batches)["lpips"]
    assert lpips == pytest.approx(distance(fakes, reals.float()).mean().item())
    fid = Validation(train_options("--val_metric=fid", "--val_pairs=9"), CPU).scores(DullModel(), batches)["fid"]
    gaussians = [Gaussian(6, x.mean(0), np.cov(x.T)) for x in (features(fakes).numpy(), features(reals).numpy())]
    assert fid == pytest.approx(frechet_distance(*gaussians), rel=1e-6)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(("metric", "flag"), [("lpips", "--alexnet_weights"), ("fid", "--inception_weights")])
def test_missing_weights_of_the_metric_stop_training_at_its_start(run, market, metric, flag):
    flags = train_flags(market, "--val_pairs=2", "--batchSize=2", f"--val_metric={metric}", f"{flag}=nowhere.pth")
    with pytest.raises(UserError, match=rf"nowhere.pth: .*{flag}.* not found"):
        run("train", *flags, "--name=a")
    assert not Path("checkpoints/a/latest_net_G.pth").exists()


def test_metric_without_validation_pairs_is_refused(capsys):
    with pytest.raises(SystemExit):
        train_options("--val_metric=psnr")
    assert "--val_metric psnr needs --val_pairs N" in capsys.readouterr().err
