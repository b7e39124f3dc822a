"""The parts of scripts/benchmark.py that draw: test.py end to end, and what precision changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from data.pairs import read_pairs, result_names
from data.synthetic.people import render_people
from scripts.benchmark import main as benchmark
from scripts.benchmark import precision as benchmark_precision
from scripts.benchmark import results as benchmark_results
from tests.conftest import TINY_G, train_flags

FLAGS = ["--gpu_ids=-1", "--batchSize=4", *TINY_G]


def cells(output: str) -> list[dict[str, str]]:
    """The rows of the one table that was printed, by column."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("|")]
    return [dict(zip(rows[0], row)) for row in rows[2:]]


def clocked(calls: list[int]):
    """In the place of `median_seconds`: calls, and says that each took two seconds."""

    def median(call, repeats, _device):
        calls.append(repeats)
        call()
        return 2.0

    return median


def test_results_end_to_end(capsys, monkeypatch):
    """Whole batches only; every file is there when they are counted; the ratio is that of its neighbors."""
    monkeypatch.setattr(benchmark_results, "PEOPLE", 1)
    monkeypatch.setattr(benchmark_results, "PHOTOS", 6)
    variants = [benchmark.speed_flags("fp32", False), benchmark.speed_flags("bf16", False)]
    calls = []
    flags = [*FLAGS, "--nThreads=0"]
    benchmark_results.report({"128x64": "market"}, flags, variants, 3, clocked(calls), seconds=4.4)
    rows = cells(capsys.readouterr().out)
    assert [(row["test.py"], row["batch"], row["precision"], row["compile"]) for row in rows] == [
        ("128x64", "4", "fp32", "no"),
        ("128x64", "4", "bf16", "no"),
    ]
    assert calls == [3, 3, 3, 3]  # before and after, of each row
    for row in rows:
        assert row["network alone"] == "0.5000"  # 2 s a batch of 4
        assert row["pairs"] == "8"  # 4.4 s are two such batches
        assert row["files"] == "18"  # 8 results, 8 strips, page, record
        assert float(row["ratio"]) == pytest.approx(float(row["s/image"]) / 0.5, abs=0.006)


def test_no_more_pairs_than_there_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_results, "PEOPLE", 1)
    monkeypatch.setattr(benchmark_results, "PHOTOS", 3)
    render_people(tmp_path, "market", (0, 1), 3, seed=0, workers=1)
    pairs = read_pairs(tmp_path / "market-pairs-test.csv")
    variants = [benchmark.speed_flags("fp32", False)]
    benchmark_results.report({"m": "market"}, [*FLAGS, "--nThreads=0"], variants, 1, clocked([]), seconds=100)
    assert cells(capsys.readouterr().out)[0]["pairs"] == str(len(pairs) // 4 * 4)


def test_precision(run, market, capsys):
    """The table's numbers from what test.py writes as PNG, computed anew."""
    run("train", *train_flags(market), "--name=a")
    flags = [*FLAGS, "--nThreads=0", "--name=a", "--dataset_mode=market", f"--dataroot={market}"]
    pairs, drawn = read_pairs(market / "market-pairs-test.csv"), {}
    for precision in ("fp32", "bf16"):
        run("test", *flags, f"--precision={precision}", "--image_format=png", f"--results_dir={precision}")
        files = [Path(precision, name) for name in result_names(pairs, "png").values()]
        drawn[precision] = np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)
    capsys.readouterr()
    benchmark_precision.report(flags, [benchmark.speed_flags(precision, False) for precision in ("fp32", "bf16")])
    plain, bf16 = cells(capsys.readouterr().out)

    levels = np.abs(drawn["bf16"] - drawn["fp32"])
    assert levels.max() > 0
    assert (plain["precision"], plain["mean difference"], plain["largest"]) == ("fp32", "0.0000", "0")
    assert (bf16["precision"], bf16["mean difference"], bf16["largest"]) == (
        "bf16", f"{levels.mean():.4f}", str(levels.max()),
    )  # fmt: skip
    targets = [np.asarray(Image.open(market / "test" / pair.target)) for pair in pairs]
    for row in (plain, bf16):
        images = drawn[row["precision"]].astype(np.uint8)
        psnr = np.mean([peak_signal_noise_ratio(real, fake) for real, fake in zip(targets, images)])
        assert float(row["PSNR"]) == pytest.approx(psnr, abs=1e-4)
        l1 = np.mean([np.abs(real.astype(float) - fake).mean() / 255 for real, fake in zip(targets, images)])
        assert float(row["L1"]) == pytest.approx(l1, abs=1e-6)
        assert row["pairs"] == str(len(pairs))


def test_difference():
    """Levels below 0 and above 127 do not wrap around."""
    a, b = torch.tensor([0, 255, 7, 7], dtype=torch.uint8), torch.tensor([255, 0, 7, 5], dtype=torch.uint8)
    assert benchmark_precision.difference(a, b) == (512 / 4, 255)


def test_precision_needs_a_network(call):
    result = call(benchmark, "--only", "precision")
    assert result.returncode == 2
    assert "--only precision needs --name" in result.stderr


def test_a_network_that_is_not_there(call, tmp_path):
    flags = ["--name=nobody", f"--checkpoints_dir={tmp_path}", "--gpu_ids=-1", "--no-compile", "--precisions=bf16"]
    result = call(benchmark, "--only", "precision", *flags)
    assert result.returncode == 2
    assert "nobody" in result.stderr
    assert "Traceback" not in result.stderr
