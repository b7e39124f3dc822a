"""metrics/bootstrap.py and --against: intervals, and paired differences."""

import re
import shutil

import numpy as np
import pytest
import torch
from scipy import stats

from metrics import metrics
from metrics.bootstrap import draw_weights, fid_draws, interval, mean_draws
from metrics.fid import Gaussian, frechet_distance
from tests.metrics.conftest import read_jsonl


def test_interval_of_a_mean_is_that_of_its_standard_error():
    """With many draws, value +- 1.96 standard errors, as for any mean of many values."""
    values = np.random.RandomState(0).exponential(size=400)
    low, high = interval(values.mean(), mean_draws(values, 20_000))
    error = stats.sem(values, ddof=0)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_fid_draws_equal_those_of_repeated_images():
    """Weights are the images repeated: against NumPy's mean and covariance of the repeated features."""
    random = np.random.RandomState(1)
    features, real = random.rand(30, 4), Gaussian(50, random.rand(4), np.diag(random.rand(4)))
    found = fid_draws(torch.from_numpy(features), real, 5)
    for value, weights in zip(found, draw_weights(30, 5), strict=True):
        repeated = features.repeat(weights.astype(int), axis=0)
        assert len(repeated) == 30
        expected = Gaussian(30, repeated.mean(0), np.cov(repeated, rowvar=False))
        assert value == pytest.approx(frechet_distance(expected, real), rel=1e-9)


def test_interval_of_fid_contains_the_value_although_draws_are_higher():
    random = np.random.RandomState(2)
    features = random.randn(60, 8)
    real = Gaussian(1000, np.zeros(8), np.eye(8))
    value = frechet_distance(Gaussian(60, features.mean(0), np.cov(features, rowvar=False)), real)
    draws = fid_draws(torch.from_numpy(features), real, 200)
    assert draws.mean() > 1.2 * value
    low, high = interval(value, draws)
    assert low < value < high


def test_bootstrap_adds_intervals_to_table_and_record(call, flags, results, tiny):
    done = call(metrics, *flags, "--metrics=l1,lpips,fid", "--bootstrap=50")
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout
    for name, found in read_jsonl(results)[0]["metrics"].items():
        low, high = found["interval"]
        assert low < found["value"] < high, name
        assert re.search(rf"^{name} .* {low:.4f} to {high:.4f}$", done.stdout, re.M)


def test_against_is_a_paired_comparison(call, flags, results, market, tiny):
    """Single values scatter much more than the differences of the same pairs."""
    other = results.parent / "other"
    other.mkdir()
    for path in results.iterdir():
        shutil.copy(path, other)
    done = call(metrics, *flags, "--metrics=l1,fid", "--bootstrap=50", f"--against={other}")
    assert done.returncode == 0, done.stderr
    equal = done.stdout.split("\nfirst: ")[1]
    assert re.search(r"^l1 ↓ \(dptn\) .* \+0\.000000 +0\.0000 to 0\.0000 +-$", equal, re.M)
    assert re.search(r"^fid ↓ \(dptn\) .* \+0\.000000 +0\.0000 to 0\.0000 +-$", equal, re.M)
    for path in (market / "test").iterdir():  # each result becomes its target, which is better
        for result in other.glob(f"*_2_{path.stem}_vis.*"):
            result.unlink()
            shutil.copy(path, result.with_suffix(".jpg"))
    done = call(metrics, *flags, "--metrics=l1", "--bootstrap=50", f"--against={other}")
    assert re.search(r"^l1 ↓ \(dptn\) .* 0\.000000 +\+0\.0\d+ .* second$", done.stdout, re.M)
    assert [record["name"] for record in read_jsonl(results)] == ["./market", str(other)] * 2


def test_against_a_wrong_folder_fails_before_the_first_evaluation(call, flags, results, tiny):
    done = call(metrics, *flags, "--metrics=fid", "--bootstrap=9", "--against=gone")
    assert (done.returncode, done.stderr) == (2, "error: --against gone: no such folder\n")
    other = results.parent / "other"
    other.mkdir()
    missing, *others = sorted(results.glob("*_vis.*"))
    for path in others:
        shutil.copy(path, other)
    done = call(metrics, *flags, "--metrics=fid", "--bootstrap=9", f"--against={other}")
    assert done.returncode == 2
    assert f"missing: {other / missing.name}" in done.stderr
    assert "--allow_missing" not in done.stderr  # which cannot be given here
    assert tiny.seen == 0


def test_against_without_intervals_says_so(call, flags, results, tiny):
    done = call(metrics, *flags, "--metrics=is", "--bootstrap=9", f"--against={results}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("no metric has an interval in both evaluations\n")


def test_against_without_pairs_or_bootstrap_is_an_error(call, flags, results):
    for more in ((), ("--bootstrap=9", "--pairs=none"), ("--bootstrap=9", "--allow_missing")):
        done = call(metrics, *flags, "--metrics=l1", f"--against={results}", *more)
        assert done.returncode == 2
        assert "--against compares pair by pair" in done.stderr
