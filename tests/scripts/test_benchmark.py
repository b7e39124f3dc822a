"""The benchmark's tables: test.py end to end, what precision changes, and how a table is printed."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch._subclasses import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from data import find_dataset
from data.pairs import read_pairs, result_names
from data.synthetic.people import render_people
from scripts.benchmark import data, measure, metrics, results
from scripts.benchmark import main as benchmark
from tests.helpers import TINY_G, train_flags
from util.device import use_precision

FLAGS = ["--gpu_ids=-1", "--batchSize=4", "--nThreads=0", *TINY_G]


def test_print_table_prints_each_row_when_it_is_measured(capsys):
    printed = []

    def rows():
        yield "a", 0.123456, 0.5
        printed.append(capsys.readouterr().out)
        yield "b", 1234.0, 1.0

    measure.print_table(rows(), {"name": "", "seconds": ".2f", "of matmul": ".0%"})
    assert printed == ["| name | seconds | of matmul |\n|---|---|---|\n| a | 0.12 | 50% |\n"]
    assert capsys.readouterr().out == "| b | 1234.00 | 100% |\n"


def test_pixel_metrics_are_timed_on_different_images_of_the_stored_size(monkeypatch, tmp_path):
    samples = metrics.write_pairs(tmp_path, "market", 9)
    images = [np.asarray(Image.open(sample.generated)) for sample in samples]
    assert {image.shape for image in images} == {(128, 64, 3)}
    assert len({image.tobytes() for image in images}) == 8
    assert all(sample.generated != tmp_path / sample.target for sample in samples)
    monkeypatch.setattr(metrics, "PAIRS", {"market": 2})
    ((name, loop, here, ratio, *_),) = metrics.measure_pixels(repeats=1)
    assert (name, ratio) == ("market", loop / here)


def test_matmul_gflops_counts_two_operations_for_each_multiply_add(monkeypatch):
    monkeypatch.setattr(measure, "median_seconds", lambda *_: 2.0)
    assert measure.matmul_gflops(torch.float32, torch.device("cpu"), size=10) == 2 * 10**3 / 2.0 / 1e9


@pytest.fixture
def two_seconds(monkeypatch) -> list[int]:
    """Replace the clock: each batch takes two seconds. The list gets the number of repeats of each measurement."""
    asked = []

    def median(call, repeats, _device):
        asked.append(repeats)
        call()
        return 2.0

    monkeypatch.setattr(results, "median_seconds", median)
    return asked


def test_results_counts_pairs_and_files_of_full_batches(monkeypatch, two_seconds):
    """All files are there when they are counted, and the ratio is the quotient of the columns before it."""
    monkeypatch.setattr(results, "PEOPLE", 1)
    monkeypatch.setattr(results, "PHOTOS", 6)
    variants = [("fp32", False), ("bf16", False)]
    monkeypatch.setattr(results, "SECONDS", 4.4)
    rows = list(results.measure_time(["128x64"], FLAGS, variants, repeats=3))
    assert [row[:4] for row in rows] == [("128x64", 4, "fp32", "no"), ("128x64", 4, "bf16", "no")]
    assert two_seconds == [3, 3, 3, 3]  # before and after, for each row
    for *_, seconds, network, ratio, pairs, files in rows:
        assert network == 0.5  # two seconds for a batch of 4
        assert pairs == 8  # 4.4 seconds are two such batches
        assert files == 18  # 8 results, 8 strips, page, record
        assert ratio == pytest.approx(seconds / network)


def test_results_takes_all_pairs_of_a_small_data_set(monkeypatch, two_seconds, tmp_path):
    monkeypatch.setattr(results, "PEOPLE", 1)
    monkeypatch.setattr(results, "PHOTOS", 3)
    render_people(tmp_path, "market", (0, 1), 3, seed=0, workers=1)
    available = len(read_pairs(tmp_path / "market-pairs-test.csv"))
    (row,) = results.measure_time(["128x64"], FLAGS, [("fp32", False)], repeats=1)
    assert row[-2] == available // 4 * 4


def test_precision_table_equals_what_test_py_writes(run, market):
    """The differences and metrics, computed anew from PNG files."""
    run("train", *train_flags(market), "--name=a")
    flags = [*FLAGS, "--name=a", "--dataset_mode=market", f"--dataroot={market}"]
    pairs, generated = read_pairs(market / "market-pairs-test.csv"), {}
    for name in ("fp32", "bf16"):
        run("test", *flags, f"--precision={name}", "--image_format=png", f"--results_dir={name}")
        files = [Path(name, file) for file in result_names(pairs, "png").values()]
        generated[name] = np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)
    rows = list(results.measure_precision(flags, [("fp32", False), ("bf16", False)]))

    levels = np.abs(generated["bf16"] - generated["fp32"])
    assert levels.max() > 0
    assert rows[0][:4] == ("fp32", "no", 0, 0)
    assert rows[1][:4] == ("bf16", "no", pytest.approx(levels.mean()), levels.max())
    targets = [np.asarray(Image.open(market / "test" / pair.target)) for pair in pairs]
    for name, _, _, _, psnr, _, l1, count in rows:
        images = generated[name].astype(np.uint8)
        expected = np.mean([peak_signal_noise_ratio(real, fake) for real, fake in zip(targets, images)])
        assert psnr == pytest.approx(expected, abs=1e-4)
        expected = np.mean([np.abs(real.astype(float) - fake).mean() / 255 for real, fake in zip(targets, images)])
        assert l1 == pytest.approx(expected, abs=1e-6)
        assert count == len(pairs)


def test_precision_compares_with_fp32_without_compilation_first(monkeypatch):
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    monkeypatch.setattr(results, "PoseTransfer", lambda opt, _device: opt)
    monkeypatch.setattr(results, "generate_and_score", lambda _transfer: (image, [0.0, 0.0, 0.0]))
    for variants in ([("bf16", False), ("fp32", False)], [("bf16", False)]):
        rows = list(results.measure_precision(["--gpu_ids=-1"], variants))
        assert [row[:2] for row in rows] == [("fp32", "no"), ("bf16", "no")]


@pytest.mark.parametrize("fake", [False, True])
def test_count_gflop_counts_fused_attention_on_a_cpu(fake):
    """Two products of 2 x 64 x 64 x 8 multiply-adds forward; five backward, because one is computed again."""
    with FakeTensorMode() if fake else nullcontext():
        q, k, v = (torch.ones(1, 2, 64, 8, requires_grad=True) for _ in range(3))
        gflop = measure.count_gflop(lambda: scaled_dot_product_attention(q, k, v).sum().backward())
    assert gflop == pytest.approx((2 + 5) * 2 * (2 * 64 * 64 * 8) / 1e9)


def test_difference_of_uint8_does_not_wrap_around():
    a, b = torch.tensor([0, 255, 7, 7], dtype=torch.uint8), torch.tensor([255, 0, 7, 5], dtype=torch.uint8)
    assert results.difference(a, b) == (512 / 4, 255)


@pytest.fixture
def exact_products() -> Iterator[None]:
    """Products of float32 matrices as before the test."""
    yield
    use_precision("fp32", torch.device("cpu"))


def test_precisions_are_those_of_the_device(exact_products):
    assert benchmark.available_precisions(torch.device("cpu")) == ["fp32", "bf16"]
    assert benchmark.available_precisions(torch.device("mps")) == ["fp32"]


def test_default_precisions_run_on_a_cpu(call, monkeypatch, exact_products):
    """The command that docs/speed.md names, but for its sizes."""
    measured = []

    def measure_nothing(work, sizes, variants, *_) -> Iterator[tuple]:
        measured.append(variants)
        return iter(())

    monkeypatch.setattr(benchmark.networks, "measure", measure_nothing)
    done = call(benchmark, "--only=training", "--gpu_ids=-1", "--no-compile")
    assert done.returncode == 0, done.stderr
    assert measured == [[("fp32", False), ("bf16", False)]]


def test_lists_are_as_long_as_published(monkeypatch):
    monkeypatch.setattr(find_dataset("market"), "published", {"train": (40, 100)})
    _, pairs = data.published_start_up("market")
    assert pairs == 100


def test_precision_without_a_name_is_refused(call):
    result = call(benchmark, "--only", "precision")
    assert result.returncode == 2
    assert "--only precision needs --name" in result.stderr


def test_precision_of_a_missing_run_is_one_line(call, tmp_path):
    flags = ["--name=nobody", f"--checkpoints_dir={tmp_path}", "--gpu_ids=-1", "--no-compile", "--precisions=bf16"]
    result = call(benchmark, "--only", "precision", *flags)
    assert result.returncode == 2
    assert "nobody" in result.stderr
    assert "Traceback" not in result.stderr
