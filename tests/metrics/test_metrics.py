"""python -m metrics.metrics as a user runs it: what it finds, prints, writes and refuses."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.pairs import read_pairs, result_name, write_pairs
from metrics import metrics
from metrics.protocols import PROTOCOLS
from tests.formula import formula_images
from tests.helpers import write_keypoints
from tests.metrics.conftest import PIXELS, read_jsonl, read_per_image, read_pixels, save
from tests.metrics.reference_metrics import reference_mask, reference_scores
from util.errors import run_main
from util.results import RUN_FILE


class TestNumbers:
    def test_published_command_equals_scikit_image(self, call, flags, results, market, tiny):
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
        written = read_per_image(market / "p.csv").to_dict("records")
        assert [(row["source"], row["target"]) for row in written] == pairs
        dptn, standard = read_jsonl(results)
        assert (dptn["protocol"], standard["protocol"]) == ("dptn", "standard")
        for record, full_range in ((dptn, False), (standard, True)):
            expected = [
                reference_scores(
                    read_pixels(row["generated"]), read_pixels(market / "test" / row["target"]), 64, full_range
                )
                for row in written
            ]
            for name in PIXELS:
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

    def test_fashion_with_padding_and_masks_equals_scikit_image(self, call, tmp_path, tiny):
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
            f"--metrics={','.join(PIXELS)}", "--calculate_mask", f"--annotations={tmp_path}/k.csv", "--nThreads=2",
            "--batch_size=2", f"--per_image={tmp_path}/p.csv", f"--out={tmp_path}/m.jsonl",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = read_per_image(tmp_path / "p.csv").to_dict("records")
        assert [(row["source"], row["target"]) for row in written] == pairs
        for row in written:
            fake, photo = read_pixels(row["generated"]), read_pixels(tmp_path / "test" / row["target"])
            mask = reference_mask(keypoints[row["target"]].astype(float), (256, 176))[..., None]
            for protocol, width in (("dptn", 256), ("standard", 176)):
                expected = reference_scores(fake, photo, width, full_range=protocol == "standard")
                masked = reference_scores(fake * mask, photo * mask, 176, full_range=protocol == "standard")
                expected |= {"mask_ssim": masked["ssim_256"], "mask_psnr": masked["psnr"]}
                for name, value in expected.items():
                    assert float(row[f"{protocol}:{name}"]) == pytest.approx(value, abs=1e-6), (protocol, name)

    def test_folder_of_test_py_gives_checkpoint_and_no_thumbnails(self, call, flags, results):
        """Its thumbnails are no results, and its record names the weights."""
        (results / "strips").mkdir()
        for path in sorted(results.glob("*_vis.*")):
            Image.new("RGB", (160, 128)).save(results / "strips" / f"{path.stem}.jpg")
        run = {"weights_file": "checkpoints/x/latest_net_G.pth", "made_with": {"weights": "abc"}}
        (results / RUN_FILE).write_text(json.dumps(run))
        done = call(metrics, *flags, "--metrics=l1")
        assert done.returncode == 0, done.stderr
        (record,) = read_jsonl(results)
        assert record["metrics"]["l1"]["n"] == 8
        assert record["checkpoint"] == {"path": "checkpoints/x/latest_net_G.pth", "sha256": "abc"}
        (results / RUN_FILE).write_text("[]")
        assert call(metrics, *flags, "--metrics=l1").returncode == 0
        assert "checkpoint" not in read_jsonl(results)[1]

    def test_record_has_everything_that_made_the_numbers(self, call, flags, results, market, tiny):
        (market / "G.pth").write_bytes(b"weights")
        assert call(metrics, *flags, f"--checkpoint={market}/G.pth", "--metrics=l1,lpips,fid").returncode == 0
        (record,) = read_jsonl(results)
        assert record["name"] == "./market"
        assert record["data_set"] == "market"
        assert record["switches"] == PROTOCOLS["dptn"].switches()
        assert record["paths"]["generated"] == str(results)
        assert set(record["versions"]) >= {"torch", "scikit-image", "lpips", "pytorch-fid"}
        assert record["checkpoint"]["sha256"].startswith("9a129038d9a00aed")
        assert set(record["weights"]) == {"alexnet", "torchvision"}
        assert re.fullmatch("[0-9a-f]{64}", record["weights"]["alexnet"]["sha256"])
        assert record["seconds"] > 0


def test_photos_of_every_type_are_measured(call, flags, results, market):
    """What test.py reads is measured: WebP, no suffix; and files of the results folder that are no photos are known."""
    first, second, *_ = sorted((market / "test").iterdir())
    csv = market / "market-pairs-test.csv"
    for path, renamed in ((first, first.with_suffix(".webp")), (second, second.with_suffix(""))):
        Image.open(path).save(renamed, format="WebP", lossless=True)
        path.unlink()
        csv.write_text(csv.read_text().replace(path.name, renamed.name))
    (results / "index.html").touch()
    done = call(metrics, *flags, "--metrics=l1", f"--pairs={csv}")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_jsonl(results)[0]["metrics"]["l1"]["n"] == 8


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

    def test_incomplete_results_are_an_error_that_lists_them(self, call, flags, results, market, spoiled):
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

    def test_allow_missing_leaves_out_and_counts(self, call, flags, results, market, spoiled):
        pairs = f"--pairs={market}/market-pairs-test.csv"
        done = call(metrics, *flags, "--metrics=l1,psnr", pairs, "--allow_missing", f"--per_image={market}/p.csv")
        assert done.returncode == 0, done.stderr
        assert "left out: 1 missing, 1 extra, 1 unreadable, 1 wrong size" in done.stdout
        (record,) = read_jsonl(results)
        assert record["problems"] == dict.fromkeys(self.PROBLEMS, 1)
        assert record["metrics"]["l1"]["n"] == 5
        written = read_per_image(market / "p.csv").to_dict("records")
        assert [(row["source"], row["target"]) for row in written] == read_pairs(market / "market-pairs-test.csv")
        filled = [row for row in written if row["dptn:l1"] and row["dptn:psnr"]]
        empty = [row for row in written if not row["dptn:l1"] and not row["dptn:psnr"]]
        assert (len(filled), len(empty)) == (5, 3)
        assert sorted(Path(row["generated"]).name for row in empty) == ["", spoiled[1], spoiled[2]]

    @pytest.mark.parametrize("record", [{"pairs": 8, "finished": False}, {"pairs": 3, "finished": True}])
    def test_results_of_a_stopped_or_smaller_run_may_be_old(self, call, flags, results, record):
        (results / "test_run.json").write_text(json.dumps(record))
        done = call(metrics, *flags, "--metrics=l1")
        assert done.returncode == 2
        what = (
            "test.py has generated only 3 of these 8 images" if record["finished"] else "test.py has not finished here"
        )
        assert done.stderr.startswith(f"error: {results}: {what}, so that others may be of an earlier run;")
        assert call(metrics, *flags, "--metrics=l1", "--allow_missing").returncode == 0
        (results / "test_run.json").write_text(json.dumps({"pairs": 8, "finished": True}))
        assert call(metrics, *flags, "--metrics=l1").returncode == 0
        shutil.copy(next(results.glob("*.jpg")), results / "other.jpg")  # named, not taken for one of an earlier run
        assert "other.jpg belongs to no pair" in call(metrics, *flags, "--metrics=l1").stderr

    def test_metrics_without_usable_image_are_not_measured(self, call, flags, results, tiny):
        for path in results.iterdir():
            path.write_bytes(b"no photo")
        done = call(metrics, *flags, "--metrics=is,l1", "--allow_missing")
        assert done.returncode == 0, done.stderr
        (record,) = read_jsonl(results)
        for name in ("is", "l1"):
            assert record["metrics"][name] == {"n": 0, "reason": "no image could be measured"}

    def test_evaluation_stops_after_ten_problems(self, call, market, tmp_path):
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

    def test_wrong_data_set_is_a_wrong_size(self, call, flags):
        done = call(metrics, *[flag for flag in flags if flag != "--market"], "--metrics=l1")
        assert done.returncode == 2
        assert "64 x 128 pixels, expected 176 x 256" in done.stderr

    def test_pairs_come_from_flag_or_data_set_or_names(self, call, flags, market, results):
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
            record = read_jsonl(results)[-1]
            assert {name: record[name] for name in expected} == expected
            path = record["paths"].get("pairs")
            assert path == {"--pairs": str(mine), by_default: str(own), "names": None}[expected["paired_by"]]
            told = f"pairs: {path} ({expected['paired_by']})\n" if path else "missing results cannot be detected\n"
            assert told in done.stdout

    def test_published_command_detects_a_missing_result(self, call, flags, results):
        lost = sorted(results.iterdir())[0]
        lost.unlink()
        done = call(metrics, *flags, "--metrics=l1")
        assert done.returncode == 2
        assert f"missing: {lost.with_suffix('')}" in done.stderr

    def test_target_without_joints_is_an_error(self, call, flags, market):
        text = (market / "market-annotation-test.csv").read_text().splitlines()
        (market / "short.csv").write_text("\n".join(text[:-1]) + "\n")
        done = call(metrics, *flags, "--metrics=mask_psnr", f"--annotations={market}/short.csv")
        assert done.returncode == 2
        assert text[-1].split(":")[0] in done.stderr
        outside = f"{text[-1].split(':')[0]}: {[-3] * 9 + [500] * 9}: {[70] * 18}"
        (market / "short.csv").write_text("\n".join([*text[:-1], outside]) + "\n")
        done = call(metrics, *flags, "--metrics=mask_psnr", f"--annotations={market}/short.csv")
        assert done.returncode == 2
        assert "mask metrics need joints inside these target photos" in done.stderr
        assert text[-1].split(":")[0] in done.stderr

    def test_errors_of_worker_processes_are_one_message(self, command, flags, results):
        """One clear message and status 2, also out of worker processes."""
        for path in results.iterdir():
            path.write_bytes(path.read_bytes()[:500])
        done = command("-m metrics.metrics", *flags, "--metrics=l1", "--nThreads=2")
        assert done.returncode == 2
        assert done.stderr.startswith("error: not all images can be evaluated")
        assert done.stderr.count("unreadable") == 8
        assert "Traceback" not in done.stderr

    def test_empty_folder_of_results_is_an_error(self, call, flags, market):
        (market / "empty").mkdir()
        done = call(metrics, *flags, f"--distorated_path={market}/empty", "--metrics=l1")
        assert done.returncode == 2
        assert "no photos" in done.stderr


class TestOutputs:
    def test_table_on_a_console_without_arrows_is_printed(self, flags, results, monkeypatch):
        console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        monkeypatch.setattr(sys, "stdout", console)
        monkeypatch.setattr(sys, "argv", ["metrics", *flags, "--metrics=l1"])
        run_main(metrics.main)
        console.flush()
        assert re.search(rb"^l1 \?  +0\.0", console.buffer.getvalue(), re.M)
        assert read_jsonl(results)[0]["metrics"]["l1"]["n"] == 8

    def test_files_are_written_before_the_table(self, call, flags, results, market, monkeypatch):
        def fail(_rows):
            raise OSError("the console is gone")

        monkeypatch.setattr(metrics.report, "format_table", fail)
        done = call(metrics, *flags, "--metrics=l1", f"--per_image={market}/p.csv", f"--html={market}/page")
        assert (done.returncode, done.stderr) == (2, "error: the console is gone\n")
        assert read_jsonl(results)[0]["metrics"]["l1"]["n"] == 8
        assert len(read_per_image(market / "p.csv").to_dict("records")) == 8
        assert (market / "page/index.html").exists()

    @pytest.mark.parametrize("flag", ["--out", "--per_image", "--html"])
    def test_unwritable_output_fails_before_the_work(self, flag, call, flags, market, tiny):
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

    def test_broken_training_photo_fails_before_the_pairs(self, call, flags, market, tiny):
        (market / "train/broken.jpg").write_bytes(b"no photo")
        assert call(metrics, *flags, "--metrics=fid").returncode == 2
        assert tiny.seen <= 6  # no results

    def test_unreadable_checkpoint_fails_before_the_work(self, call, flags, market, tiny, monkeypatch):
        def fail(_path):
            raise OSError("cannot be read")

        (market / "G.pth").write_bytes(b"weights")
        monkeypatch.setattr(metrics, "sha256", fail)
        assert call(metrics, *flags, "--metrics=fid", f"--checkpoint={market}/G.pth").returncode == 2
        assert tiny.seen == 0


class TestWeights:
    def test_missing_weights_error_names_file_and_flag(self, call, flags, results, tmp_path, monkeypatch):
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
        (record,) = read_jsonl(results)
        assert "alexnet-owt" in record["metrics"]["lpips"]["reason"]
        assert "value" not in record["metrics"]["lpips"]
        assert record["metrics"]["l1"]["n"] == 8

    @pytest.mark.parametrize(
        ("package", "wanted", "needed_by"),
        [
            ("dominate", ["--metrics=l1", "--html=page"], "--html"),
            ("lpips", ["--metrics=lpips"], "LPIPS"),
            ("pytorch-fid", ["--metrics=fid", "--protocol=standard"], "the Inception-v3 of 2015 (--protocol standard)"),
        ],
    )
    def test_missing_package_is_one_clear_error(self, package, wanted, needed_by, call, flags, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
        done = call(metrics, *flags, *wanted)
        expected = f"error: {needed_by} needs the package {package}: pip install {package}\n"
        assert (done.returncode, done.stderr) == (2, expected)

    @pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02.", b"\x80\x02}q\x00X", b"PK\x03\x04" + bytes(99)])
    def test_damaged_download_is_one_clear_error(self, content, call, flags, results, tmp_path, monkeypatch):
        file = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        done = call(metrics, *flags, "--metrics=lpips")
        assert done.returncode == 2
        assert re.fullmatch(rf"error: .*Put an undamaged {file.name} under {file.parent} .*, or give .*\n", done.stderr)
        assert call(metrics, *flags, "--metrics=lpips,l1", "--skip_unavailable").returncode == 0
        assert read_jsonl(results)[0]["metrics"]["l1"]["n"] == 8

    def test_skip_unavailable_leaves_out_one_protocol(self, call, flags, results, tiny):
        both = ["--protocol=dptn", "--protocol=standard", "--metrics=fid", "--fid_inception_weights=gone"]
        assert call(metrics, *flags, *both).returncode == 2
        assert call(metrics, *flags, *both, "--skip_unavailable").returncode == 0
        dptn, standard = (record["metrics"]["fid"] for record in read_jsonl(results))
        assert dptn["n"] == 8
        assert standard == {"n": 0, "reason": "pytorch-fid: weights are gone"}
