"""metrics/evaluation.py, through the command with small networks."""

import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from data.pairs import read_keypoints, read_pairs, result_name, write_pairs
from metrics import metrics, stream
from metrics.evaluation import Measurement
from metrics.fid import Gaussian, frechet_distance
from metrics.masks import pose_mask
from metrics.protocols import PROTOCOLS
from metrics.stream import make_loader
from tests.metrics.conftest import TinyInception, TinyLPIPS, read_jsonl, read_per_image, read_pixels
from tests.metrics.reference_metrics import reference_scores


def test_measurement_is_mean_variance_and_standard_error():
    values = np.random.RandomState(0).rand(50)
    measured = Measurement.of(values)
    assert (measured.value, measured.n) == (pytest.approx(values.mean()), 50)
    assert measured.variance == pytest.approx(np.mean((values - values.mean()) ** 2))
    assert measured.standard_error == pytest.approx(stats.sem(values))


def test_fid_is_the_distance_of_both_folders(call, flags, results, market, tiny):
    assert call(metrics, *flags, "--metrics=fid").returncode == 0
    sides = []
    for folder in (results, market / "train"):
        images = np.stack([read_pixels(path) for path in sorted(folder.iterdir())]).transpose(0, 3, 1, 2)
        features = TinyInception("torchvision", "")(torch.from_numpy(images)).double().numpy()
        sides.append(Gaussian(len(features), features.mean(0), np.cov(features, rowvar=False)))
    found = read_jsonl(results)[0]["metrics"]["fid"]
    assert found == {"value": pytest.approx(frechet_distance(*sides)), "n": 8, "n_real": 6}


def test_values_do_not_depend_on_batches_order_and_workers(call, flags, results, market, tiny):
    annotations = f"--annotations={market}/market-annotation-test.csv"
    wanted = [*flags, "--metrics=psnr,ssim,fid,lpips,is,mask_lpips", annotations, "--pairs=none"]
    for batch in (("--batch_size=1",), ("--batch_size=3",), ("--batch_size=99", "--nThreads=2")):
        assert call(metrics, *wanted, *batch).returncode == 0
    assert call(metrics, *wanted, f"--pairs={market}/market-pairs-test.csv").returncode == 0  # the csv's order
    first, *others = ({k: v["value"] for k, v in r["metrics"].items() if k != "is"} for r in read_jsonl(results))
    assert len(first) == 5
    for other in others:
        assert other == pytest.approx(first, rel=1e-6)
    scores = [record["metrics"]["is"]["value"] for record in read_jsonl(results)]
    assert scores[1:3] == pytest.approx([scores[0]] * 2)  # splits follow the order, so the csv's may differ


def test_baseline_drops_the_pairs_that_results_would_drop(call, flags, market, tiny, monkeypatch, tmp_path):
    """The last ones by the names of results; a baseline's images have one name, or those of source photos."""
    monkeypatch.setitem(PROTOCOLS, "gfla", replace(PROTOCOLS["gfla"], lpips_batch=3))
    csv = market / "market-pairs-test.csv"
    pairs = read_pairs(csv)
    write_pairs(csv, pairs[::-1])
    flags = [flag for flag in flags if not flag.startswith("--distorated_path")]
    outputs = [f"--per_image={tmp_path}/a.csv", f"--out={tmp_path}/metrics.jsonl"]
    done = call(metrics, *flags, *outputs, "--baseline=mean_image", "--metrics=lpips", "--protocol=gfla")
    assert done.returncode == 0, done.stderr
    table = read_per_image(tmp_path / "a.csv")
    table.index = [result_name(*pair) for pair in zip(table["source"], table["target"])]
    kept = table["gfla:lpips"].astype(float).sort_index()[: len(pairs) // 3 * 3]
    (record,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record["metrics"]["lpips"]["n"] == len(kept) < len(pairs)
    assert record["metrics"]["lpips"]["value"] == pytest.approx(kept.mean())


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_holds_at_most_two_batches(workers, call, flags, results, tiny, monkeypatch):
    """This batch and the last, however many images there are."""
    seen, most = [], 0

    def watched(*args):
        nonlocal most
        for batch, problems in make_loader(*args):
            (images,) = batch["fakes"].values() if isinstance(batch, dict) else (batch,)
            seen.append(weakref.ref(images))
            del images
            yield batch, problems
            most = max(most, sum(image() is not None for image in seen))

    monkeypatch.setattr(stream, "make_loader", watched)
    wanted = ["--metrics=l1,fid,lpips,is", "--batch_size=1", f"--nThreads={workers}"]
    assert call(metrics, *flags, *wanted).returncode == 0
    assert len(seen) == 8 + 6
    assert most <= 2


def test_mask_metrics_use_the_targets_keypoints(call, flags, results, market, tiny):
    done = call(
        metrics, *flags, "--metrics=l1", "--calculate_mask", f"--annotations={market}/market-annotation-test.csv",
        f"--per_image={market}/p.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    keypoints = read_keypoints(market / "market-annotation-test.csv")
    for row in read_per_image(market / "p.csv").to_dict("records"):
        mask = pose_mask(keypoints[row["target"]], (128, 64))[..., None]
        fake, real = (read_pixels(path) * mask for path in (row["generated"], market / "test" / row["target"]))
        expected = reference_scores(fake, real, 64, full_range=False)
        assert float(row["dptn:mask_ssim"]) == pytest.approx(expected["ssim_256"], abs=1e-6)
        assert float(row["dptn:mask_psnr"]) == pytest.approx(expected["psnr"], abs=1e-6)
        assert float(row["dptn:mask_lpips"]) == pytest.approx(255 * expected["l1"], rel=1e-5)


def test_undefined_values_are_counted_and_named(call, flags, results, market, tiny):
    """A black image has no range, which mask_ssim of the dptn protocol divides by."""
    pair = read_pairs(market / "market-pairs-test.csv")[2]
    Image.new("RGB", (64, 128)).save(results / result_name(*pair))
    done = call(
        metrics, *flags, "--protocol=dptn,standard", "--metrics=mask_ssim", f"--per_image={market}/p.csv",
        f"--annotations={market}/market-annotation-test.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    note = f"1 of 8 values are not finite, first {result_name(*pair)} for {pair.target}"
    assert f"mask_ssim (dptn): {note}\n" in done.stdout
    assert "mask_ssim (standard):" not in done.stdout
    dptn, standard = (record["metrics"]["mask_ssim"] for record in read_jsonl(results))
    assert (dptn["value"], dptn["n"], dptn["note"]) == ("nan", 8, note)
    assert "note" not in standard
    undefined = [row["dptn:mask_ssim"] for row in read_per_image(market / "p.csv").to_dict("records")]
    assert (undefined[2], undefined.count("nan")) == ("nan", 1)  # it was measured


def test_lpips_works_on_a_device_without_float64(call, flags, results, tiny, monkeypatch):
    """As Apple's MPS."""
    distance = TinyLPIPS.forward
    monkeypatch.setattr(TinyLPIPS, "forward", lambda *args: SimpleNamespace(cpu=lambda: distance(*args)))
    assert call(metrics, *flags, "--metrics=lpips").returncode == 0
    assert read_jsonl(results)[0]["metrics"]["lpips"]["n"] == 8
