"""train.py and test.py as a user runs them, on a small data set and tiny networks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_command
import train as train_command
from data.pairs import read_pairs, result_name
from tests.helpers import (
    COMMON,
    LOSS_NAMES,
    TINY_G,
    losses_logged,
    save_random_generator,
    train_flags,
    write_keypoints,
)


def test_train_writes_logs_sheets_and_checkpoints(run, market):
    run(
        "train", *train_flags(market), "--name=a", "--print_freq=3", "--display_freq=6", "--save_latest_freq=6",
        "--save_epoch_freq=2", "--save_by_iter",
    )  # fmt: skip
    rows = losses_logged("a")
    assert [row[:3] for row in rows] == [
        (1, 3, 3),
        (1, 6, 6),
        (2, 3, 9),
        (2, 6, 12),
    ]  # 8 pairs; the last two do not fill a batch
    assert all(tuple(losses) == LOSS_NAMES for *_, losses in rows)
    files = {p.name for p in Path("checkpoints/a").iterdir() if p.is_file()}
    assert files == {
        *("loss_log.txt", "loss_log.jsonl", "run_info.jsonl", "train_opt.txt", "train_opt.json", "parameters.txt"),
        *("latest_state.pt", *(f"{label}_net_{net}.pth" for label in ("latest", 2, 6, 12) for net in "GD")),
    }
    sheets = sorted(Path("checkpoints/a/web/images").iterdir())
    assert [s.name for s in sheets] == ["epoch001_iters000000006.jpg", "epoch002_iters000000012.jpg"]
    assert Image.open(sheets[0]).size == (6 * 64, 3 * 128)
    options = Path("checkpoints/a/train_opt.txt").read_text()
    assert "batchSize: 3    [default: 1]" in options
    assert "\nlr: 0.0002\n" in options
    last, kept = (torch.load(f"checkpoints/a/{n}_net_G.pth", weights_only=True) for n in ("latest", 2))
    assert all(torch.equal(last[key], kept[key]) for key in last)


def test_print_freq_that_is_no_multiple_of_the_batch_prints_when_crossed(run, market):
    run("train", *train_flags(market, "--batchSize=4"), "--name=a", "--print_freq=6")
    assert [row[2] for row in losses_logged("a")] == [8, 12]  # 6, 12 are crossed at 8, 12; 16 crosses nothing


def test_train_repeats_with_the_same_seed(run, market):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", *train_flags(market), f"--name={name}", f"--seed={seed}", "--print_freq=3")
    a, b, c = map(losses_logged, "abc")
    assert a == b != c


def test_train_does_not_depend_on_nthreads(run, market):
    for name, workers in (("a", 0), ("b", 2)):
        run("train", *train_flags(market), f"--name={name}", f"--nThreads={workers}", "--print_freq=3")
    assert losses_logged("a") == losses_logged("b")


def test_load_pretrain_starts_from_the_networks_it_finds(run, market, capsys):
    run("train", *train_flags(market), "--name=a")
    start = Path("checkpoints/a")
    run("train", *train_flags(market), "--name=b", "--lr=0", f"--load_pretrain={start}", "--seed=9")
    assert "starting from checkpoints/a: networks G, D;" in capsys.readouterr().out
    for net in "GD":
        a, b = (torch.load(f"checkpoints/{run}/latest_net_{net}.pth", weights_only=True) for run in "ab")
        assert all(torch.equal(a[key], b[key]) for key in a if not key.endswith(("_u", "_v")))
    (start / "latest_net_D.pth").unlink()
    run("train", *train_flags(market), "--name=c", "--lr=0", f"--load_pretrain={start}")
    assert "networks G;" in capsys.readouterr().out


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_test_generates_every_pair_at_any_batch_size(run, market, image_format):
    save_random_generator()
    flags = [*COMMON, *TINY_G, "--name=a", f"--dataroot={market}", f"--image_format={image_format}"]
    for size in (1, 3):
        run("test", *flags, f"--batchSize={size}", f"--results_dir=results/{size}")
    names = {result_name(*pair, image_format) for pair in read_pairs(market / "market-pairs-test.csv")}
    assert len(names) > 5
    for size in (1, 3):
        folder = Path(f"results/{size}")
        assert {p.name for p in folder.iterdir()} == names | {"strips", "index.html", "test_run.json"}
        assert {p.stem for p in (folder / "strips").iterdir()} == {Path(name).stem for name in names}
    for name in names:
        one, three = (np.array(Image.open(f"results/{size}/{name}")).astype(int) for size in (1, 3))
        assert one.shape == (128, 64, 3)
        assert np.abs(one - three).max() <= (1 if image_format == "png" else 8)


def test_test_generates_fashion_at_the_stored_size(run, tmp_path):
    root = tmp_path / "fashion"
    (root / "test").mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (256, 176, 3), np.uint8)
    Image.fromarray(pixels).save(root / "test/a.jpg")
    (root / "fasion-resize-pairs-test.csv").write_text("from,to\na.jpg,a.jpg\n")
    write_keypoints(root / "fasion-resize-annotation-test.csv", {"a.jpg": np.full((18, 2), 40)})
    save_random_generator()
    run("test", "--gpu_id=-1", "--dataset_mode=fashion", *TINY_G, "--name=a", f"--dataroot={root}")
    assert Image.open("results/a_2_a_vis.jpg").size == (176, 256)


def test_which_epoch_selects_a_saved_epoch(run, market):
    run("train", *train_flags(market), "--name=a", "--save_epoch_freq=1")
    run("test", *COMMON, *TINY_G, "--name=a", f"--dataroot={market}", "--which_epoch=1")
    assert len(list(Path("results").glob("*_vis.jpg"))) > 5


class TestErrors:
    """One clear line, exit status 2, no traceback."""

    @pytest.fixture(autouse=True)
    def in_an_empty_folder(self, tmp_path, monkeypatch):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")

    def check(self, done, *parts: str) -> None:
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        for part in parts:
            assert part in done.stderr

    def test_missing_checkpoint(self, command, market):
        done = command("test.py", *COMMON, "--name=gone", f"--dataroot={market}")
        self.check(done, "checkpoints/gone/latest_net_G.pth", "not found")
        assert not list(market.parent.glob("work/results/*"))

    def test_other_network_size(self, call, market):
        save_random_generator()
        done = call(test_command, *COMMON, "--name=a", "--ngf=16", "--num_blocks=1", f"--dataroot={market}")
        self.check(done, "does not fit this network G", "block0.model.0.weight", "in all)")

    def test_missing_gpu(self, call, market):
        done = call(train_command, f"--dataroot={market}", "--gpu_id=0")
        self.check(done, "--gpu_ids 0: this machine has no CUDA GPUs")

    def test_unknown_flag(self, call):
        self.check(call(train_command, "--lambda_recc=3"), "unrecognized arguments: --lambda_recc=3")

    def test_incomplete_data(self, call, market):
        (market / "train/0001_c2s1_train.jpg").unlink()
        shutil.rmtree(market / "test")
        done = call(train_command, *train_flags(market))
        self.check(done, "market-pairs-train.csv, row", "0001_c2s1_train.jpg")
        assert not Path("checkpoints").exists()

    def test_results_dir_that_is_a_file(self, call, market):
        save_random_generator()
        Path("results").write_text("a file")
        done = call(test_command, *COMMON, *TINY_G, "--name=a", f"--dataroot={market}")
        self.check(done, "results/test_run.json: could not be written")
