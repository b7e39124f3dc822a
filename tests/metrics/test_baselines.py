"""--baseline: the source photos, or the mean of the training photos, instead of generated images."""

import json

import numpy as np
import pytest

from data.pairs import read_pairs
from metrics import metrics
from tests.metrics.conftest import PIXELS, read_pixels
from tests.metrics.reference_metrics import reference_scores


def test_copy_source_scores_the_source_photos(call, market, tmp_path):
    flags = [f"--gt_path={market}/test", "--market", f"--metrics={','.join(PIXELS)}", "--nThreads=0"]
    flags += [f"--out={tmp_path}/m.jsonl"]
    done = call(metrics, *flags, "--baseline=copy_source", f"--pairs={market}/market-pairs-test.csv")
    assert done.returncode == 0, done.stderr
    pairs = read_pairs(market / "market-pairs-test.csv")
    photos = [[read_pixels(market / "test" / name) for name in pair] for pair in pairs]
    with np.errstate(divide="ignore"):  # two pairs are of one photo, whose PSNR is infinite
        each = [reference_scores(source, target, 64, full_range=False) for source, target in photos]
    found = json.loads((tmp_path / "m.jsonl").read_text())["metrics"]
    for name in ("ssim", "ssim_256", "mae", "l1"):
        assert found[name]["value"] == pytest.approx(np.mean([scores[name] for scores in each]), abs=1e-6)
    assert (found["psnr"]["value"], found["psnr"]["variance"]) == ("inf", "nan")  # JSON has no infinity


def test_mean_image_scores_the_mean_training_photo(call, market, tmp_path):
    flags = [f"--gt_path={market}/test", "--market", "--metrics=l1", f"--out={tmp_path}/m.jsonl", "--nThreads=0"]
    flags += ["--baseline=mean_image", f"--pairs={market}/market-pairs-test.csv", f"--fid_real_path={market}/train"]
    assert call(metrics, *flags, "--batch_size=4").returncode == 0
    mean = np.mean([read_pixels(path) for path in (market / "train").iterdir()], axis=0).round()
    targets = [read_pixels(market / "test" / pair.target) for pair in read_pairs(market / "market-pairs-test.csv")]
    found = json.loads((tmp_path / "m.jsonl").read_text())["metrics"]["l1"]
    assert found["value"] == pytest.approx(np.mean([np.abs(mean - target).mean() / 255 for target in targets]))


def test_mean_image_without_usable_photo_is_an_error(call, market, tmp_path):
    for photo in (market / "train").iterdir():
        photo.write_bytes(b"no photo")
    flags = [f"--gt_path={market}/test", "--market", "--metrics=l1", f"--out={tmp_path}/m.jsonl", "--nThreads=0"]
    flags += ["--baseline=mean_image", f"--fid_real_path={market}/train", "--allow_missing"]
    done = call(metrics, *flags)
    assert done.returncode == 2
    assert "--baseline mean_image: no photo of --fid_real_path can be used" in done.stderr


def test_broken_training_photo_counts_once(call, flags, market, tmp_path, tiny):
    """Although both the mean image and FID read it. Features without it are not cached."""
    sorted((market / "train").iterdir())[0].write_bytes(b"no photo")
    flags = [flag for flag in flags if not flag.startswith("--distorated_path")]
    done = call(
        metrics, *flags, "--metrics=fid", "--baseline=mean_image", "--allow_missing", f"--out={tmp_path}/m.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "m.jsonl").read_text())["problems"] == {"unreadable": 1}
    assert not (market.parent / "cache").exists()
