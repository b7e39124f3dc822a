"""metrics/fid.py against goldens, NumPy, SciPy and closed forms; its cache, by itself and through the command."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg, stats

from metrics import metrics
from metrics.fid import FeatureStatistics, Gaussian, InceptionScore, cache_file, frechet_distance
from tests.metrics.conftest import GOLDENS, read_jsonl
from util.errors import UserError


def statistics(features: np.ndarray, batch: int = 10**6) -> Gaussian:
    sums = FeatureStatistics()
    for start in range(0, len(features), batch):
        sums.update(torch.from_numpy(features[start : start + batch].copy()))
    return sums.compute()


def test_frechet_distance_equals_golden():
    random = np.random.RandomState(0)
    a, b = random.randn(200, 16), random.randn(150, 16) * 1.2 + 0.3
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(float(GOLDENS["frechet_200x16_150x16"]))


def test_feature_statistics_in_any_batches_and_order_equal_numpy():
    features = np.random.RandomState(1).rand(53, 9) * 3 + 100
    for batch in (1, 7, 53):
        n, mean, covariance = statistics(features[:: 1 if batch == 7 else -1], batch)
        assert n == 53
        np.testing.assert_allclose(mean, features.mean(0), rtol=1e-13)
        np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=0, atol=1e-9)


def test_frechet_distance_agrees_with_a_matrix_square_root():
    random = np.random.RandomState(2)
    a, b = (statistics(random.randn(100, 20) @ random.randn(20, 20) + shift) for shift in (0, 0.5))
    shared = np.trace(linalg.sqrtm(a.covariance @ b.covariance).real)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-8)


def test_frechet_distance_of_independent_features_has_closed_form():
    a = Gaussian(9, np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = Gaussian(9, np.array([3.0, 5.0]), np.diag([1.0, 25.0]))
    assert frechet_distance(a, b) == pytest.approx(3**2 + 4**2 + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_frechet_distance_of_equal_sets_is_zero_with_fewer_images_than_features():
    features = np.random.RandomState(3).rand(20, 60)
    assert frechet_distance(statistics(features), statistics(features[::-1])) == pytest.approx(0, abs=1e-10)


def test_feature_statistics_of_one_image_raise_user_error():
    with pytest.raises(UserError, match="at least 2 images"):
        statistics(np.zeros((1, 4)))


def test_inception_score_of_certain_and_diverse_classes_is_their_number():
    classes = torch.eye(4, dtype=torch.float64).repeat(20, 1)  # splits of 8 images, each class twice
    score = InceptionScore(80)
    for start in range(0, 80, 7):
        score.update(np.arange(80)[start : start + 7], classes[start : start + 7])
    np.testing.assert_allclose(score.compute(), np.full(10, 4.0))


def test_inception_score_is_exp_of_the_mean_divergence():
    p = np.random.RandomState(0).dirichlet(np.ones(5), 30)
    score = InceptionScore(30)
    for index in reversed(range(30)):
        score.update(np.array([index]), torch.from_numpy(p[index : index + 1]))
    splits = p.reshape(10, 3, 5)
    expected = [np.exp(np.mean([stats.entropy(row, split.mean(0)) for row in split])) for split in splits]
    np.testing.assert_allclose(score.compute(), expected)


def test_cache_recomputes_only_after_a_change(call, flags, results, market, tiny):
    def run(*more: str) -> int:
        before = tiny.seen
        done = call(metrics, *flags, "--metrics=fid", *more)
        assert done.returncode == 0, done.stderr
        return tiny.seen - before

    assert run() == 8 + 6
    assert run() == 8
    assert run("--protocol=standard") == 8 + 6  # another network
    assert run("--precision=bf16") == 8 + 6
    photo = sorted((market / "train").iterdir())[0]
    state = photo.stat()
    os.utime(photo, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert run() == 8 + 6  # touched
    Image.new("RGB", (64, 128)).save(market / "train/new.jpg")
    assert run() == 8 + 7
    (market / "train/new.jpg").unlink()
    assert run() == 8
    first, again = (read_jsonl(results)[number]["metrics"]["fid"]["value"] for number in (0, 1))
    assert first == again
    for file in (market.parent / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert run() == 8 + 6  # damaged


def test_cache_file_depends_on_weights(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    files = {cache_file(tmp_path, tmp_path, ["a.jpg"], {"weights": weights}) for weights in ("x", "y")}
    assert len(files) == 2


def test_unwritable_cache_is_a_warning(call, flags, results, market, tiny):
    (market / "file").touch()
    done = call(metrics, *flags, "--metrics=fid", f"--cache_dir={market}/file/cache")
    assert done.returncode == 0, done.stderr
    assert f"warning: the features of the real photos are not cached: {market}/file/cache/" in done.stderr
    assert read_jsonl(results)[0]["metrics"]["fid"]["n"] == 8


def test_incomplete_statistics_are_not_cached(call, flags, market, tiny):
    (market / "train/broken.jpg").write_bytes(b"no photo")
    done = call(metrics, *flags, "--metrics=fid")
    assert done.returncode == 2
    assert "unreadable" in done.stderr
    assert call(metrics, *flags, "--metrics=fid", "--allow_missing").returncode == 0
    assert not (market.parent / "cache").exists()
