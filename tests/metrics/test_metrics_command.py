"""python -m metrics.metrics as a user runs it: what it finds, prints, writes and refuses."""

import csv
import dataclasses
import json
import os
import re
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from data.pairs import read_keypoints, read_pairs, result_name, write_pairs
from metrics import evaluation, feature_cache, metrics
from metrics.fid import Gaussian, frechet_distance
from metrics.masks import pose_mask
from metrics.options import make_parser
from metrics.protocols import PROTOCOLS
from metrics.report import compared_rows
from metrics.stream import Batch, make_loader
from tests.conftest import REPOSITORY, write_keypoints
from tests.formula import formula_images
from tests.reference_metrics import reference_mask, reference_scores
from util.errors import UserError
from util.results import RUN_FILE

PIXELS = "psnr,ssim,ssim_256,mae,l1"


class TinyInception(nn.Module):
    """In the place of Inception: colors of the quarters of an image; remembers how many images it saw."""

    seen = 0

    def __init__(self, kind: str, weights: str) -> None:
        super().__init__()
        if weights == "gone":
            raise UserError(f"{kind}: weights are gone")
        self.register_buffer("factor", torch.tensor(2.0 if kind == "pytorch-fid" else 1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        TinyInception.seen += len(images)
        return F.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1) * self.factor

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        return features.double().softmax(1)


class TinyLPIPS(nn.Module):
    """In the place of LPIPS: the mean difference."""

    def __init__(self, _weights: str) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1.0))

    def forward(self, fakes: torch.Tensor, reals: torch.Tensor) -> torch.Tensor:
        return (fakes.float() - reals.float()).abs().flatten(1).mean(1)


@pytest.fixture
def tiny(monkeypatch):
    """Small networks; `seen` counts what FID's looked at."""
    TinyInception.seen = 0
    monkeypatch.setattr(evaluation, "Inception", TinyInception)
    monkeypatch.setattr(evaluation, "LPIPS", TinyLPIPS)
    return TinyInception


@pytest.fixture
def results(market) -> Path:
    """Results of every test pair: the target, darker in steps, some as PNG."""
    folder = market.parent / "results/DPTN_market"
    folder.mkdir(parents=True)
    for number, pair in enumerate(read_pairs(market / "market-pairs-test.csv")):
        pixels = np.asarray(Image.open(market / "test" / pair.target)).astype(int)
        darker = np.clip(pixels - 3 * number - 1, 0, 255).astype(np.uint8)
        Image.fromarray(darker).save(folder / result_name(*pair, "png" if number % 2 else "jpg"))
    return folder


@pytest.fixture
def flags(market, results) -> list[str]:
    """The published command, on small data."""
    return [
        f"--gt_path={market}/test", f"--distorated_path={results}", f"--fid_real_path={market}/train",
        "--name=./market", "--market", "--nThreads=0", f"--cache_dir={market.parent}/cache", "--gpu_id=-1",
    ]  # fmt: skip


def records(results: Path) -> list[dict]:
    return [json.loads(line) for line in (results.parent / "metrics.jsonl").read_text().splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def save(image: np.ndarray, path: Path) -> None:
    """(3,H,W) of gray levels."""
    Image.fromarray(image.round().astype(np.uint8).transpose(1, 2, 0)).save(path)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class TestNumbers:
    def test_published_command(self, call, flags, results, market, tiny):
        """Both protocols in columns of their own; values, variances and n against scikit-image and NumPy."""
        done = call(metrics, *flags, "--protocol=dptn,standard", f"--per_image={market}/p.csv")
        assert done.returncode == 0, done.stderr
        table = [re.split(r"\s{2,}", line) for line in done.stdout.splitlines()]
        header = next(row for row in table if row[0] == "metric")
        assert header == ["metric", "dptn", "variance", "std. error", "n", "standard", "variance", "std. error", "n"]
        shown = {row[0].split()[0]: row for row in table[table.index(header) + 1 :][:7]}
        assert list(shown) == ["psnr", "ssim", "ssim_256", "mae", "l1", "fid", "lpips"]
        assert shown["psnr"][4] == shown["psnr"][8] == "8"
        assert shown["fid"][2:] == ["8 vs 6", shown["fid"][3], "8 vs 6"]

        pairs = read_pairs(market / "market-pairs-test.csv")
        written = rows(market / "p.csv")
        assert [(row["source"], row["target"]) for row in written] == pairs
        dptn, standard = records(results)
        assert (dptn["protocol"], standard["protocol"]) == ("dptn", "standard")
        for record, full_range in ((dptn, False), (standard, True)):
            expected = [
                reference_scores(pixels(row["generated"]), pixels(market / "test" / row["target"]), 64, full_range)
                for row in written
            ]
            for name in PIXELS.split(","):
                each = [scores[name] for scores in expected]
                found = record["metrics"][name]
                column = [float(row[f"{record['protocol']}:{name}"]) for row in written]
                np.testing.assert_allclose(column, each, rtol=0, atol=1e-6)
                assert found["value"] == pytest.approx(np.mean(each), abs=1e-6)
                assert found["variance"] == pytest.approx(np.var(each), rel=1e-4)
                assert found["standard_error"] == pytest.approx(np.std(each, ddof=1) / 8**0.5, rel=1e-4)
                assert found["n"] == 8
                assert f"{found['value']:.6f}" == shown[name][1 if record is dptn else 5]
        assert dptn["metrics"]["ssim_256"] != standard["metrics"]["ssim_256"]
        assert standard["metrics"]["fid"]["value"] == pytest.approx(4 * dptn["metrics"]["fid"]["value"], rel=1e-5)

    def test_fid_is_that_of_both_folders(self, call, flags, results, market, tiny):
        assert call(metrics, *flags, "--metrics=fid").returncode == 0
        sides = []
        for folder in (results, market / "train"):
            images = np.stack([pixels(path) for path in sorted(folder.iterdir())]).transpose(0, 3, 1, 2)
            features = TinyInception("torchvision", "")(torch.from_numpy(images)).double().numpy()
            sides.append(Gaussian(len(features), features.mean(0), np.cov(features, rowvar=False)))
        found = records(results)[0]["metrics"]["fid"]
        assert found == {"value": pytest.approx(frechet_distance(*sides)), "n": 8, "n_real": 6}

    def test_batches_order_and_workers_change_nothing(self, call, flags, results, market, tiny):
        annotations = f"--annotations={market}/market-annotation-test.csv"
        wanted = [*flags, "--metrics=psnr,ssim,fid,lpips,is,mask_lpips", annotations, "--pairs=none"]
        for batch in (("--batch_size=1",), ("--batch_size=3",), ("--batch_size=99", "--nThreads=2")):
            assert call(metrics, *wanted, *batch).returncode == 0
        assert call(metrics, *wanted, f"--pairs={market}/market-pairs-test.csv").returncode == 0  # the csv's order
        first, *others = ({k: v["value"] for k, v in r["metrics"].items() if k != "is"} for r in records(results))
        assert len(first) == 5
        for other in others:
            assert other == pytest.approx(first, rel=1e-6)
        scores = [record["metrics"]["is"]["value"] for record in records(results)]
        assert scores[1:3] == pytest.approx([scores[0]] * 2)  # parts follow the order, so the csv's may differ

    @pytest.mark.parametrize("workers", [0, 2])
    def test_images_are_let_go(self, workers, call, flags, results, tiny, monkeypatch):
        """Memory does not grow with their number: at most this batch and the last are there."""
        seen, most = [], 0

        def watched(*args):
            nonlocal most
            for batch in make_loader(*args):
                seen.append(weakref.ref(batch.images.fakes if isinstance(batch, Batch) else batch[0]))
                yield batch
                most = max(most, sum(image() is not None for image in seen))

        monkeypatch.setattr(evaluation, "make_loader", watched)
        wanted = ["--metrics=l1,fid,lpips,is", "--batch_size=1", f"--nThreads={workers}"]
        assert call(metrics, *flags, *wanted).returncode == 0
        assert len(seen) == 8 + 6
        assert most <= 2

    def test_masks_come_from_the_targets(self, call, flags, results, market, tiny):
        done = call(
            metrics, *flags, "--metrics=l1", "--calculate_mask", f"--annotations={market}/market-annotation-test.csv",
            f"--per_image={market}/p.csv",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        keypoints = read_keypoints(market / "market-annotation-test.csv")
        for row in rows(market / "p.csv"):
            mask = pose_mask(keypoints[row["target"]], (128, 64))[..., None]
            fake, real = (pixels(path) * mask for path in (row["generated"], market / "test" / row["target"]))
            expected = reference_scores(fake, real, 64, full_range=False)
            assert float(row["dptn:mask_ssim"]) == pytest.approx(expected["ssim_256"], abs=1e-6)
            assert float(row["dptn:mask_psnr"]) == pytest.approx(expected["psnr"], abs=1e-6)
            assert float(row["dptn:mask_lpips"]) == pytest.approx(255 * expected["l1"], rel=1e-5)

    def test_deep_fashion(self, call, tmp_path, tiny):
        """Padding, data ranges and masks of both protocols, from JPEGs through worker processes."""
        names = [f"fashionWOMENTeesid0000{number}_1front.jpg" for number in range(3)]
        real, other = ((formula_images(name, (3, 3, 256, 176)) + 1) * 127.5 for name in ("metric_gt", "metric_fake"))
        pairs = [(names[0], names[1]), (names[1], names[2]), (names[2], names[0])]
        (tmp_path / "test").mkdir()
        (tmp_path / "results").mkdir()
        for name, image in zip(names, real):
            save(image, tmp_path / "test" / name)
        for number, pair in enumerate(pairs):
            target = names.index(pair[1])
            save((3 * real[target] + other[number]) / 4, tmp_path / "results" / result_name(*pair))
        write_pairs(tmp_path / "fasion-resize-pairs-test.csv", pairs)
        keypoints = {name: np.random.RandomState(n).randint(0, (256, 176), (18, 2)) for n, name in enumerate(names)}
        write_keypoints(tmp_path / "k.csv", keypoints)
        done = call(
            metrics, f"--gt_path={tmp_path}/test", f"--distorated_path={tmp_path}/results", "--protocol=dptn,standard",
            f"--metrics={PIXELS}", "--calculate_mask", f"--annotations={tmp_path}/k.csv", "--nThreads=2",
            "--batch_size=2", f"--per_image={tmp_path}/p.csv", f"--out={tmp_path}/m.jsonl",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = rows(tmp_path / "p.csv")
        assert [(row["source"], row["target"]) for row in written] == pairs
        for row in written:
            fake, photo = pixels(row["generated"]), pixels(tmp_path / "test" / row["target"])
            mask = reference_mask(keypoints[row["target"]].astype(float), (256, 176))[..., None]
            for protocol, width in (("dptn", 256), ("standard", 176)):
                expected = reference_scores(fake, photo, width, full_range=protocol == "standard")
                masked = reference_scores(fake * mask, photo * mask, 176, full_range=protocol == "standard")
                expected |= {"mask_ssim": masked["ssim_256"], "mask_psnr": masked["psnr"]}
                for name, value in expected.items():
                    assert float(row[f"{protocol}:{name}"]) == pytest.approx(value, abs=1e-6), (protocol, name)

    def test_undefined_values_are_named(self, call, flags, results, market, tiny):
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
        dptn, standard = (record["metrics"]["mask_ssim"] for record in records(results))
        assert (dptn["value"], dptn["n"], dptn["note"]) == ("nan", 8, note)
        assert "note" not in standard
        undefined = [row["dptn:mask_ssim"] for row in rows(market / "p.csv")]
        assert (undefined[2], undefined.count("nan")) == ("nan", 1)  # it was measured

    def test_a_device_without_float64(self, call, flags, results, tiny, monkeypatch):
        """As Apple's MPS."""
        distance = TinyLPIPS.forward
        monkeypatch.setattr(TinyLPIPS, "forward", lambda *args: SimpleNamespace(cpu=lambda: distance(*args)))
        assert call(metrics, *flags, "--metrics=lpips").returncode == 0
        assert records(results)[0]["metrics"]["lpips"]["n"] == 8

    def test_folder_of_the_test_command(self, call, flags, results):
        """Its thumbnails are no results, and its record names the weights."""
        (results / "strips").mkdir()
        for path in sorted(results.glob("*_vis.*")):
            Image.new("RGB", (160, 128)).save(results / "strips" / f"{path.stem}.jpg")
        run = {"weights_file": "checkpoints/x/latest_net_G.pth", "made_with": {"weights": "abc"}}
        (results / RUN_FILE).write_text(json.dumps(run))
        done = call(metrics, *flags, "--metrics=l1")
        assert done.returncode == 0, done.stderr
        (record,) = records(results)
        assert record["metrics"]["l1"]["n"] == 8
        assert record["checkpoint"] == {"path": "checkpoints/x/latest_net_G.pth", "sha256": "abc"}
        (results / RUN_FILE).write_text("[]")
        assert call(metrics, *flags, "--metrics=l1").returncode == 0
        assert "checkpoint" not in records(results)[1]

    def test_record(self, call, flags, results, market, tiny):
        (market / "G.pth").write_bytes(b"weights")
        assert call(metrics, *flags, f"--checkpoint={market}/G.pth", "--metrics=l1,lpips,fid").returncode == 0
        (record,) = records(results)
        assert record["name"] == "./market"
        assert record["data_set"] == "market"
        assert record["switches"] == dataclasses.asdict(PROTOCOLS["dptn"])
        assert record["paths"]["generated"] == str(results)
        assert set(record["versions"]) >= {"torch", "scikit-image", "lpips", "pytorch-fid"}
        assert record["checkpoint"]["sha256"].startswith("9a129038d9a00aed")
        assert set(record["weights"]) == {"alexnet", "torchvision"}
        assert re.fullmatch("[0-9a-f]{64}", record["weights"]["alexnet"]["sha256"])
        assert record["seconds"] > 0


class TestBaselines:
    def test_copy_source(self, call, market, tmp_path):
        flags = [f"--gt_path={market}/test", "--market", f"--metrics={PIXELS}", "--nThreads=0"]
        flags += [f"--out={tmp_path}/m.jsonl"]
        done = call(metrics, *flags, "--baseline=copy_source", f"--pairs={market}/market-pairs-test.csv")
        assert done.returncode == 0, done.stderr
        pairs = read_pairs(market / "market-pairs-test.csv")
        photos = [[pixels(market / "test" / name) for name in pair] for pair in pairs]
        with np.errstate(divide="ignore"):  # two pairs are of one photo, whose PSNR is infinite
            each = [reference_scores(source, target, 64, full_range=False) for source, target in photos]
        found = json.loads((tmp_path / "m.jsonl").read_text())["metrics"]
        for name in ("ssim", "ssim_256", "mae", "l1"):
            assert found[name]["value"] == pytest.approx(np.mean([scores[name] for scores in each]), abs=1e-6)
        assert (found["psnr"]["value"], found["psnr"]["variance"]) == ("inf", "nan")  # JSON has no infinity

    def test_mean_image(self, call, market, tmp_path):
        flags = [f"--gt_path={market}/test", "--market", "--metrics=l1", f"--out={tmp_path}/m.jsonl", "--nThreads=0"]
        flags += ["--baseline=mean_image", f"--pairs={market}/market-pairs-test.csv", f"--fid_real_path={market}/train"]
        assert call(metrics, *flags, "--batch_size=4").returncode == 0
        mean = np.mean([pixels(path) for path in (market / "train").iterdir()], axis=0).round()
        targets = [pixels(market / "test" / pair.target) for pair in read_pairs(market / "market-pairs-test.csv")]
        found = json.loads((tmp_path / "m.jsonl").read_text())["metrics"]["l1"]
        assert found["value"] == pytest.approx(np.mean([np.abs(mean - target).mean() / 255 for target in targets]))

    def test_mean_of_nothing(self, call, market, tmp_path):
        for photo in (market / "train").iterdir():
            photo.write_bytes(b"no photo")
        flags = [f"--gt_path={market}/test", "--market", "--metrics=l1", f"--out={tmp_path}/m.jsonl", "--nThreads=0"]
        flags += ["--baseline=mean_image", f"--fid_real_path={market}/train", "--allow_missing"]
        done = call(metrics, *flags)
        assert done.returncode == 2
        assert f"mean_image: no photo in {market}/train can be used" in done.stderr

    def test_a_broken_photo_is_one_problem(self, call, flags, market, tmp_path, tiny):
        """Though both the mean image and FID come across it. Nor are features without it kept for later."""
        sorted((market / "train").iterdir())[0].write_bytes(b"no photo")
        flags = [flag for flag in flags if not flag.startswith("--distorated_path")]
        done = call(
            metrics, *flags, "--metrics=fid", "--baseline=mean_image", "--allow_missing", f"--out={tmp_path}/m.jsonl"
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "m.jsonl").read_text())["problems"] == {"unreadable": 1}
        assert not (market.parent / "cache").exists()


class TestCompleteness:
    PROBLEMS = ("missing", "extra", "unreadable", "wrong size")

    @pytest.fixture
    def spoiled(self, results, market) -> list[str]:
        """One result each is missing, extra, cut short and too large."""
        paths = sorted(results.iterdir())
        shutil.copy(paths[0], results / "nobody_2_knows_vis.jpg")
        paths[0].unlink()
        paths[1].write_bytes(paths[1].read_bytes()[:1000])
        Image.new("RGB", (65, 128)).save(paths[2])
        return [path.name for path in paths]

    def test_error_lists_what_is_wrong(self, call, flags, results, market, spoiled):
        done = call(metrics, *flags, "--metrics=l1", f"--pairs={market}/market-pairs-test.csv")
        assert done.returncode == 2
        assert f"missing: {results / spoiled[0]}"[:-4] in done.stderr
        assert f"extra: {results}/nobody_2_knows_vis.jpg" in done.stderr
        (results / "nobody_2_knows_vis.jpg").unlink()
        done = call(metrics, *flags, "--metrics=l1", "--pairs=none")  # nothing is known to be missing
        assert done.returncode == 2
        assert f"unreadable: {results / spoiled[1]}" in done.stderr
        assert f"wrong size: {results / spoiled[2]}: 65 x 128 pixels, expected 64 x 128" in done.stderr
        assert not (results.parent / "metrics.jsonl").exists()

    def test_allow_missing_counts(self, call, flags, results, market, spoiled):
        pairs = f"--pairs={market}/market-pairs-test.csv"
        done = call(metrics, *flags, "--metrics=l1,psnr", pairs, "--allow_missing", f"--per_image={market}/p.csv")
        assert done.returncode == 0, done.stderr
        assert "left out: 1 missing, 1 extra, 1 unreadable, 1 wrong size" in done.stdout
        (record,) = records(results)
        assert record["problems"] == dict.fromkeys(self.PROBLEMS, 1)
        assert record["metrics"]["l1"]["n"] == 5
        written = rows(market / "p.csv")
        assert [(row["source"], row["target"]) for row in written] == read_pairs(market / "market-pairs-test.csv")
        filled = [row for row in written if row["dptn:l1"] and row["dptn:psnr"]]
        empty = [row for row in written if not row["dptn:l1"] and not row["dptn:psnr"]]
        assert (len(filled), len(empty)) == (5, 3)
        assert sorted(Path(row["generated"]).name for row in empty) == ["", spoiled[1], spoiled[2]]

    def test_nothing_can_be_used(self, call, flags, results, tiny):
        for path in results.iterdir():
            path.write_bytes(b"no photo")
        done = call(metrics, *flags, "--metrics=is,l1", "--allow_missing")
        assert done.returncode == 0, done.stderr
        (record,) = records(results)
        for name in ("is", "l1"):
            assert record["metrics"][name] == {"n": 0, "reason": "no image could be measured"}

    def test_ten_problems_are_enough(self, call, market, tmp_path):
        """A wrong data set is noticed before all of it is read."""
        (tmp_path / "results").mkdir()
        pairs = read_pairs(market / "market-pairs-test.csv")
        for number in range(3):
            for pair in pairs:
                name = f"{number}_{pair.source}"
                shutil.copy(market / "test" / pair.source, market / "test" / name)
                Image.new("RGB", (64, 64)).save(tmp_path / "results" / result_name(name, pair.target))
        done = call(
            metrics, f"--gt_path={market}/test", f"--distorated_path={tmp_path}/results", "--market", "--metrics=l1",
            "--nThreads=0", "--batch_size=1", "--pairs=none",
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.count("wrong size") == 10
        assert "(11 in all)" in done.stderr

    def test_fashion_results_need_fashion_sizes(self, call, flags):
        done = call(metrics, *[flag for flag in flags if flag != "--market"], "--metrics=l1")
        assert done.returncode == 2
        assert "64 x 128 pixels, expected 176 x 256" in done.stderr

    def test_which_pairs(self, call, flags, market, results):
        """The data set's own csv where it is, another where that is given, names where neither or by wish."""
        own, mine = market / "market-pairs-test.csv", market / "mine.csv"
        shutil.copy(own, mine)
        by_default, by_names = "the data set's csv beside --gt_path", {"paired_by": "names", "completeness": "unknown"}
        for choice, expected in (
            ((), {"paired_by": by_default, "completeness": "checked"}),
            ((f"--pairs={mine}",), {"paired_by": "--pairs", "completeness": "checked"}),
            (("--pairs=none",), by_names),
            (("gone",), by_names),
        ):
            if choice == ("gone",):
                own.unlink()
                choice = ()
            done = call(metrics, *flags, "--metrics=l1", *choice)
            assert done.returncode == 0, done.stderr
            record = records(results)[-1]
            assert {name: record[name] for name in expected} == expected
            path = record["paths"].get("pairs")
            assert path == {"--pairs": str(mine), by_default: str(own), "names": None}[expected["paired_by"]]
            told = (
                f"pairs: {path} ({expected['paired_by']})\n" if path else "nobody knows whether results are missing\n"
            )
            assert told in done.stdout

    def test_published_commands_notice_what_is_missing(self, call, flags, results):
        lost = sorted(results.iterdir())[0]
        lost.unlink()
        done = call(metrics, *flags, "--metrics=l1")
        assert done.returncode == 2
        assert f"missing: {lost.with_suffix('')}" in done.stderr

    def test_target_without_joints(self, call, flags, market):
        text = (market / "market-annotation-test.csv").read_text().splitlines()
        (market / "short.csv").write_text("\n".join(text[:-1]) + "\n")
        done = call(metrics, *flags, "--metrics=mask_psnr", f"--annotations={market}/short.csv")
        assert done.returncode == 2
        assert text[-1].split(":")[0] in done.stderr
        outside = f"{text[-1].split(':')[0]}: {[-3] * 9 + [500] * 9}: {[70] * 18}"
        (market / "short.csv").write_text("\n".join([*text[:-1], outside]) + "\n")
        done = call(metrics, *flags, "--metrics=mask_psnr", f"--annotations={market}/short.csv")
        assert done.returncode == 2
        assert "no joints inside these target photos" in done.stderr
        assert text[-1].split(":")[0] in done.stderr

    def test_in_a_process_of_its_own(self, command, flags, results):
        """One clear message and status 2, also out of worker processes."""
        for path in results.iterdir():
            path.write_bytes(path.read_bytes()[:500])
        done = command("-m metrics.metrics", *flags, "--metrics=l1", "--nThreads=2")
        assert done.returncode == 2
        assert done.stderr.startswith("error: not all images can be evaluated")
        assert done.stderr.count("unreadable") == 8
        assert "Traceback" not in done.stderr


class TestOutputs:
    def test_a_console_without_arrows(self, command, flags, results):
        done = command("-m metrics.metrics", *flags, "--metrics=l1", PYTHONIOENCODING="cp1252")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^l1 \?  +0\.0", done.stdout, re.M)
        assert records(results)[0]["metrics"]["l1"]["n"] == 8

    def test_files_come_before_the_table(self, call, flags, results, market, monkeypatch):
        def fail(_rows):
            raise OSError("the console is gone")

        monkeypatch.setattr(metrics, "as_table", fail)
        done = call(metrics, *flags, "--metrics=l1", f"--per_image={market}/p.csv", f"--html={market}/page")
        assert (done.returncode, done.stderr) == (2, "error: the console is gone\n")
        assert records(results)[0]["metrics"]["l1"]["n"] == 8
        assert len(rows(market / "p.csv")) == 8
        assert (market / "page/index.html").exists()

    @pytest.mark.parametrize("flag", ["--out", "--per_image", "--html"])
    def test_what_cannot_be_written_is_noticed_first(self, flag, call, flags, market, tiny):
        (market / "folder/index.html").mkdir(parents=True)
        (market / "file").write_text("mine")
        for path in (market / "folder", market / "file/x"):
            before = sorted(market.rglob("*"))
            done = call(metrics, *flags, "--metrics=l1,lpips,fid", f"{flag}={path}")
            assert done.returncode == 2
            assert re.fullmatch(rf"error: {path}\S*: cannot be written \(.*\)\n", done.stderr)
            assert tiny.seen == 0
            assert sorted(market.rglob("*")) == before
        assert (market / "file").read_text() == "mine"

    def test_a_broken_training_photo_is_noticed_first(self, call, flags, market, tiny):
        (market / "train/broken.jpg").write_bytes(b"no photo")
        assert call(metrics, *flags, "--metrics=fid").returncode == 2
        assert tiny.seen <= 6  # no results

    def test_what_is_recorded_is_read_first(self, call, flags, market, tiny, monkeypatch):
        def fail(_path):
            raise OSError("cannot be read")

        (market / "G.pth").write_bytes(b"weights")
        monkeypatch.setattr(metrics, "sha256", fail)
        assert call(metrics, *flags, "--metrics=fid", f"--checkpoint={market}/G.pth").returncode == 2
        assert tiny.seen == 0


class TestWeights:
    def test_missing_weights_name_file_and_remedy(self, call, flags, results, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))

        def refuse(*_args, **_kwargs):
            raise OSError("no network")

        monkeypatch.setattr("torch.hub.urlopen", refuse)
        for metric, flag, file in (
            ("lpips", "--alexnet_weights", "alexnet-owt-7be5be79.pth"),
            ("fid", "--inception_weights", "inception_v3_google-0cc3c7bd.pth"),
        ):
            done = call(metrics, *flags, f"--metrics={metric}")
            assert done.returncode == 2
            assert file in done.stderr
            assert f"{flag} PATH" in done.stderr
        done = call(metrics, *flags, "--protocol=standard", "--metrics=is")
        assert "pt_inception-2015-12-05-6726825d.pth" in done.stderr

        done = call(metrics, *flags, "--metrics=lpips,l1", "--skip_unavailable")
        assert done.returncode == 0
        assert "not measured: lpips (dptn): --alexnet_weights imagenet" in done.stdout
        assert re.search(r"lpips ↓ +not measured +0", done.stdout)
        (record,) = records(results)
        assert "alexnet-owt" in record["metrics"]["lpips"]["reason"]
        assert "value" not in record["metrics"]["lpips"]
        assert record["metrics"]["l1"]["n"] == 8

    @pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02.", b"\x80\x02}q\x00X", b"PK\x03\x04" + bytes(99)])
    def test_damaged_download(self, content, call, flags, results, tmp_path, monkeypatch):
        file = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        done = call(metrics, *flags, "--metrics=lpips")
        assert done.returncode == 2
        assert re.fullmatch(rf"error: .*Put a sound {file.name} under {file.parent}, or give .*\n", done.stderr)
        assert call(metrics, *flags, "--metrics=lpips,l1", "--skip_unavailable").returncode == 0
        assert records(results)[0]["metrics"]["l1"]["n"] == 8

    def test_one_protocol_may_lack_its_network(self, call, flags, results, tiny):
        both = ["--protocol=dptn", "--protocol=standard", "--metrics=fid", "--fid_inception_weights=gone"]
        assert call(metrics, *flags, *both).returncode == 2
        assert call(metrics, *flags, *both, "--skip_unavailable").returncode == 0
        dptn, standard = (record["metrics"]["fid"] for record in records(results))
        assert dptn["n"] == 8
        assert standard == {"n": 0, "reason": "pytorch-fid: weights are gone"}


class TestCache:
    def test_real_photos_are_seen_once(self, call, flags, results, market, tiny):
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
        first, again = (records(results)[number]["metrics"]["fid"]["value"] for number in (0, 1))
        assert first == again
        for file in (market.parent / "cache").iterdir():
            file.write_bytes(file.read_bytes()[:100])
        assert run() == 8 + 6  # damaged

    def test_key_knows_the_weights(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"1")
        keys = {feature_cache.cache_key(tmp_path, ["a.jpg"], {"weights": weights}) for weights in ("x", "y")}
        assert len(keys) == 2

    def test_cache_that_cannot_be_written(self, call, flags, results, market, tiny):
        (market / "file").touch()
        done = call(metrics, *flags, "--metrics=fid", f"--cache_dir={market}/file/cache")
        assert done.returncode == 0, done.stderr
        assert f"warning: the features of the real photos are not kept: {market}/file/cache/" in done.stderr
        assert records(results)[0]["metrics"]["fid"]["n"] == 8

    def test_incomplete_statistics_are_not_kept(self, call, flags, market, tiny):
        (market / "train/broken.jpg").write_bytes(b"no photo")
        done = call(metrics, *flags, "--metrics=fid")
        assert done.returncode == 2
        assert "unreadable" in done.stderr
        assert call(metrics, *flags, "--metrics=fid", "--allow_missing").returncode == 0
        assert not (market.parent / "cache").exists()


class TestCompare:
    def test_side_by_side(self, call, flags, results, market):
        for name, metric in (("first", "l1,psnr"), ("second", "l1")):
            call(metrics, *flags, f"--name={name}", f"--metrics={metric}", "--protocol=dptn,standard")
        done = call(metrics, f"--compare={results.parent}/metrics.jsonl")
        assert done.returncode == 0, done.stderr
        dptn, standard = done.stdout.strip().split("\n\n")
        for table, protocol in ((dptn, "dptn"), (standard, "standard")):
            title, header, *lines = table.splitlines()
            assert title == f"market, {protocol} protocol"
            assert header.split() == ["metric", "[1]", "[2]"]
            assert re.fullmatch(r"psnr ↑ +\d+\.\d{4} ± \S+ \(n 8\) +-", lines[0])
            assert re.fullmatch(r"l1 ↓( +\d+\.\d{4} ± \S+ \(n 8\)){2}", lines[1])
            assert [line.split(":")[0] for line in lines[2:]] == ["[1] first", "[2] second"]

    def test_refuses_other_switches_under_the_same_name(self, call, flags, results):
        call(metrics, *flags, "--metrics=l1")
        file = results.parent / "metrics.jsonl"
        line = json.loads(file.read_text())
        line["switches"]["pad"] = False
        file.write_text(file.read_text() + json.dumps(line) + "\n")
        done = call(metrics, f"--compare={file}")
        assert done.returncode == 2
        assert "line 2: measured with a protocol 'dptn' of other switches" in done.stderr

    def test_names_weights_and_precision(self, call, flags, results, tiny):
        call(metrics, *flags, "--metrics=lpips,fid")
        call(metrics, *flags, "--metrics=l1", "--precision=bf16")
        weights = records(results)[0]["weights"]
        first, second = call(metrics, f"--compare={results.parent}/metrics.jsonl").stdout.splitlines()[-2:]
        digests = [f"{network} {weights[network]['sha256'][:8]}" for network in ("torchvision", "alexnet")]
        assert first.endswith(f":00, {', '.join(digests)}")  # the time ends in its zone
        assert second.endswith(", bf16")

    def test_one_table_is_of_one_kind(self):
        record = {"data_set": "market", "protocol": "dptn", "metrics": {"l1": {"value": 0.5, "n": 2}}}
        assert compared_rows([record, record], "ab")[1] == ["l1 ↓", *["0.5000 (n 2)"] * 2]
        for other in ({"protocol": "standard"}, {"data_set": "fashion"}):
            with pytest.raises(UserError, match="several data sets or protocols"):
                compared_rows([record, {**record, **other}], "ab")

    @pytest.mark.parametrize(
        ("part", "content"),
        [
            ("metrics", []), ("metrics", {"l1": 1}), ("metrics", {"l1": {"value": "x", "n": 1}}),
            ("metrics", {"l1": {"value": 1.0}}), ("metrics", {"fid": {"value": 1.0, "n": 1, "n_real": "inf"}}),
            ("metrics", {"l1": {"value": 1.0, "n": 1, "standard_error": []}}), ("paths", {}), ("paths", []),
            ("name", None), ("data_set", []), ("protocol", []), ("switches", 1), ("weights", []),
            ("weights", {"alexnet": "abc"}),
        ],
    )  # fmt: skip
    def test_malformed_lines(self, part, content, call, flags, results):
        call(metrics, *flags, "--metrics=l1")
        (record,) = records(results)
        file = results.parent / "metrics.jsonl"
        file.write_text(json.dumps({**record, part: content}) + "\n")
        done = call(metrics, f"--compare={file}")
        assert done.returncode == 2
        assert re.fullmatch(rf"error: --compare {file}[,:].*\n", done.stderr)

    @pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '["protocol"]\n'])
    def test_refuses_other_files(self, call, tmp_path, text):
        (tmp_path / "x.jsonl").write_text(text)
        done = call(metrics, f"--compare={tmp_path}/x.jsonl")
        assert done.returncode == 2
        assert "x.jsonl" in done.stderr
        assert call(metrics, f"--compare={tmp_path}/none.jsonl").returncode == 2


class TestPage:
    def test_page(self, call, flags, market, results):
        pairs = f"--pairs={market}/market-pairs-test.csv"
        done = call(metrics, *flags, "--metrics=psnr,l1", pairs, f"--html={market}/page")
        assert done.returncode == 0, done.stderr
        page = (market / "page/index.html").read_text()
        shown = re.findall(r'src="([^"]+)"', page)
        assert len(shown) == 2 * 9  # two metrics; worst, median and best; three pairs each
        assert {str(path.relative_to(market / "page")) for path in (market / "page/images").iterdir()} == set(shown)
        assert page.count("<svg") == 2
        assert page.count("<rect") == 2 * 40
        # results get darker along the csv: pair 7 is the worst, pair 0 the best, by both metrics
        assert re.findall(r"images/(\d+)\.png", page)[::9] == ["000007", "000007"]
        assert re.findall(r"images/(\d+)\.png", page)[6::9] == ["000000", "000000"]
        sheet = pixels(market / "page/images/000007.png")
        pair = read_pairs(market / "market-pairs-test.csv")[7]
        assert sheet.shape == (128, 3 * 64, 3)
        for part, path in enumerate(
            (market / "test" / pair.source, market / "test" / pair.target, results / result_name(*pair, "png"))
        ):
            assert (sheet[:, part * 64 : (part + 1) * 64] == pixels(path)).all()

    def test_infinite_values(self, call, market):
        """A copied source may equal its target."""
        done = call(
            metrics, f"--gt_path={market}/test", "--market", "--metrics=psnr", "--baseline=copy_source", "--nThreads=0",
            f"--pairs={market}/market-pairs-test.csv", f"--html={market}/page", f"--out={market}/m.jsonl",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "inf: " in (market / "page/index.html").read_text()


class TestFlags:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ((), "--gt_path is needed"),
            (("--gt_path=a",), "one of --distorated_path"),
            (("--gt_path=a", "--distorted_path=b", "--baseline=copy_source"), "one of --distorated_path"),
            (("--gt_path=a", "--baseline=copy_source"), "needs --pairs"),
            (("--gt_path=a", "--baseline=mean_image", "--pairs=p", "--metrics=l1"), "needs the training photos"),
            (("--gt_path=a", "--distorated_path=b"), "--metrics fid needs the training photos"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=mask_ssim"), "--annotations"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=psnr,best"), "'best' is none of psnr, ssim"),
            (("--gt_path=a", "--distorated_path=b", "--protocol=mine"), "'mine' is none of dptn, standard"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--cache_dir=a/cache"), "out of data and results"),
            (("--gt_p=a",), "unrecognized arguments"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--checkpoint=gone.pth"), "gone.pth: no such file"),
            (("--compare=x", "--gt_path=a", "--market"), "leave out --gt_path, --market"),
            (("--gt_path=gone", "--distorated_path=b", "--metrics=l1"), "--gt_path gone: no such folder"),
            (("--gt_path=a", "--baseline=copy_source", "--pairs=none"), "needs --pairs"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--html=b/../b"), "--html b/../b holds data or"),
            (("--gt_path=a", "--distorated_path=b", "--metrics=l1", "--html=./a"), "--html a holds data or results"),
            (
                ("--gt_path=a", "--distorated_path=b", "--fid_real_path=r", "--metrics=fid,is", "--per_image=p"),
                "fid, is",
            ),
        ],
    )
    def test_bad_command_lines(self, call, flags, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = call(metrics, *flags)
        assert done.returncode == 2
        assert message in done.stderr

    def test_empty_folder(self, call, flags, market):
        (market / "empty").mkdir()
        done = call(metrics, *flags, f"--distorated_path={market}/empty", "--metrics=l1")
        assert done.returncode == 2
        assert "no photos" in done.stderr

    def test_both_spellings(self):
        for spelling in ("--distorated_path", "--distorted_path"):
            assert make_parser().parse_args([f"{spelling}=x"]).distorated_path == Path("x")

    def test_every_flag_is_read(self):
        code = "".join(path.read_text() for path in (REPOSITORY / "metrics").glob("*.py"))
        for action in make_parser()._actions:
            if action.dest not in ("help", "inception_weights", "fid_inception_weights"):  # read through FLAGS
                assert f"args.{action.dest}" in code, action.dest

    def test_protocols_are_named_after_themselves(self):
        assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {"dptn": "dptn", "standard": "standard"}
