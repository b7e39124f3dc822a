"""What a training run shows and records: logs, page, run folder, visdom (a real server), TensorBoard."""

import json
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.pairs import read_pairs
from tests.helpers import LOSS_NAMES, losses_logged, train_flags, train_options
from util.errors import UserError
from util.visualizer import Visualizer

LOSSES = {"app_gen_s": 0.1 + 0.2, "style_gen_t": 1e-9}
VISUAL_NAMES = ("source", "generated")


@pytest.fixture
def start(tmp_path):
    """start(resume_from_total, flags...): the visualizer of a run that starts or resumes."""

    def visualizer(resume_from_total: int = 0, *flags: str) -> Visualizer:
        return Visualizer(train_options(*flags), tmp_path / "run", VISUAL_NAMES, resume_from_total)

    return visualizer


def log_steps(visualizer: Visualizer, *totals: int) -> None:
    for total in totals:
        visualizer.print_current_losses(1, total, total, 0.25, {name: value + total for name, value in LOSSES.items()})


def visuals(color: str) -> list[list[Image.Image]]:
    return [[Image.new("RGB", (4, 8), color)] * 2] * 3


class TestLogs:
    def test_losses_are_logged_as_text_and_json(self, start, tmp_path, capsys):
        start().print_current_losses(2, 64, 128, 0.12345, LOSSES)
        line = "(epoch: 2, iters: 64, total iters: 128, time: 0.123) app_gen_s: 0.300000 style_gen_t: 0.000000\n"
        assert (tmp_path / "run/loss_log.txt").read_text() == line
        assert capsys.readouterr().out == line
        row = json.loads((tmp_path / "run/loss_log.jsonl").read_text())
        assert row == {"epoch": 2, "iters": 64, "total_iters": 128, "time": 0.12345, **LOSSES}

    def test_unused_losses_stay_in_the_files_but_not_on_console_and_page(self, start, tmp_path, capsys):
        visualizer = start()
        visualizer.unused_losses = {"style_gen_t"}
        log_steps(visualizer, 3)
        visualizer.update_page()
        assert capsys.readouterr().out == "(epoch: 1, iters: 3, total iters: 3, time: 0.250) app_gen_s: 3.300000\n"
        assert (tmp_path / "run/loss_log.txt").read_text().endswith(" app_gen_s: 3.300000 style_gen_t: 3.000000\n")
        assert "style_gen_t" in json.loads((tmp_path / "run/loss_log.jsonl").read_text())
        page = (tmp_path / "run/web/index.html").read_text()
        assert "app_gen_s" in page
        assert "style_gen_t" not in page

    def test_resume_drops_what_was_logged_after_the_position(self, start, tmp_path):
        visualizer = start()
        log_steps(visualizer, 3, 6)
        kept = [(tmp_path / "run" / name).read_text() for name in ("loss_log.txt", "loss_log.jsonl")]
        log_steps(visualizer, 9)
        with (tmp_path / "run/loss_log.jsonl").open("a") as log:
            log.write('{"epoch": 1, "iters": 12, "to')  # killed while writing
        resumed = start(6)
        assert [(tmp_path / "run" / name).read_text() for name in ("loss_log.txt", "loss_log.jsonl")] == kept
        log_steps(resumed, 9)
        log = pd.read_json(tmp_path / "run/loss_log.jsonl", lines=True, precise_float=True)
        assert log.total_iters.tolist() == [3, 6, 9]
        assert log.app_gen_s.tolist() == [LOSSES["app_gen_s"] + total for total in (3, 6, 9)]

    def test_new_run_in_a_used_folder_starts_new_logs(self, start, tmp_path):
        log_steps(start(), 3)
        start()
        assert (tmp_path / "run/loss_log.txt").read_text() == ""

    def test_log_of_an_older_version_is_set_aside(self, start, tmp_path, capsys):
        (tmp_path / "run").mkdir()
        old = "(epoch: 1, iters: 3, total iters: 3, time: 0.1) app: 1.0\n"
        (tmp_path / "run/loss_log.txt").write_text(old)
        log_steps(start(3), 6)
        assert (
            capsys.readouterr().out.count("loss_log.txt was written by an older version: it is now loss_log_old") == 1
        )
        assert (tmp_path / "run/loss_log_old.txt").read_text() == old
        assert (tmp_path / "run/loss_log.txt").read_text().startswith("(epoch: 1, iters: 6, ")

    @pytest.mark.parametrize("content", [b"text\n", b"5\n", b'{"epoch": 1}\n', b"\xff\n", b'{"total_iters": 3}\n'])
    def test_damaged_log_is_a_user_error(self, start, tmp_path, content):
        log_steps(start(), 3)
        (tmp_path / "run/loss_log.jsonl").write_bytes(content)
        with pytest.raises(UserError, match=r"loss_log.jsonl: not a log that train.py wrote"):
            start(3)

    def test_validation_is_logged_once_for_each_position(self, start, tmp_path):
        scores = {"l1": 0.5, "psnr": float("inf"), "ssim": 0.75}
        visualizer = start()
        visualizer.print_validation(1, 8, scores, True)
        visualizer.print_validation(1, 8, scores, True)
        start(8).print_validation(2, 16, scores, False)
        assert (tmp_path / "run/val_log.txt").read_text().splitlines() == [
            "(epoch: 1, total iters: 8, validation) l1: 0.500000 psnr: inf ssim: 0.750000 best",
            "(epoch: 2, total iters: 16, validation) l1: 0.500000 psnr: inf ssim: 0.750000",
        ]
        log = pd.read_json(tmp_path / "run/val_log.jsonl", lines=True)
        assert log.is_best.tolist() == [True, False]
        assert log.psnr.tolist() == [float("inf")] * 2


class TestPage:
    def test_sheets_are_shown_newest_first(self, start, tmp_path):
        visualizer = start()
        log_steps(visualizer, 3, 6)
        visualizer.display_current_results(1, 3, visuals("red"))
        visualizer.display_current_results(2, 6, visuals("lime"))
        page = (tmp_path / "run/web/index.html").read_text()
        sheets = re.findall(r'<img[^>]*src="([^"]+)"', page)
        assert sheets == ["images/epoch002_iters000000006.jpg", "images/epoch001_iters000000003.jpg"]
        assert Image.open(tmp_path / "run/web" / sheets[0]).size == (2 * 4, 3 * 8)
        assert "<h2>epoch 2, 6 samples</h2>" in page
        assert page.count("<polyline") == len(LOSSES)
        assert "app_gen_s: 6.3, lowest 3.3" in page
        assert "<span>generated</span>" in page

    def test_resume_drops_sheets_after_the_position_and_keeps_the_curves(self, start, tmp_path):
        visualizer = start()
        log_steps(visualizer, 3, 6)
        for total in (3, 6, 9):
            visualizer.display_current_results(1, total, visuals("red"))
        start(6).update_page()
        page = (tmp_path / "run/web/index.html").read_text()
        assert re.findall(r"iters0+(\d)\.jpg", page) == ["6", "3"]
        assert page.count("<polyline") == len(LOSSES)
        assert not (tmp_path / "run/web/images/epoch001_iters000000009.jpg").exists()


def test_other_processes_write_nothing(start, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("util.distributed.is_main", lambda: False)
    visualizer = start()
    visualizer.print("text")
    log_steps(visualizer, 3)
    visualizer.print_validation(1, 3, {"ssim": 1.0}, True)
    visualizer.close()
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_run_folder_that_cannot_be_made_is_a_user_error(start, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(UserError, match="run: cannot make the run folder"):
        start()


def test_tensorboard_has_every_value(start, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    visualizer = start(0, "--tf_log")
    log_steps(visualizer, 3, 6)
    visualizer.print_validation(1, 6, {"ssim": 0.5}, True)
    visualizer.close()
    events = EventAccumulator(str(tmp_path / "run/tf_log")).Reload()
    for name, value in LOSSES.items():
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        np.testing.assert_allclose(seen, [(3, 3 + value), (6, 6 + value)], rtol=1e-6)
    assert [event.value for event in events.Scalars("val_ssim")] == [0.5]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestVisdom:
    def test_server_has_every_value_and_a_sheet(self, start, tmp_path):
        visdom = pytest.importorskip("visdom")
        port = free_port()
        with (tmp_path / "server.log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-c", "from visdom.server.run_server import main; main()", "-port", str(port),
                 "-env_path", str(tmp_path / "env")], stdout=log, stderr=log,
            )  # fmt: skip
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            visualizer = start(0, "--display_id=7", f"--display_port={port}", "--display_env=dptn")
            log_steps(visualizer, 3, 6)
            visualizer.display_current_results(1, 6, visuals("red"))
            client = visdom.Visdom(port=port, env="dptn", raise_exceptions=True, use_incoming_socket=False)
            for name, value in LOSSES.items():
                line = json.loads(client.get_window_data(f"7_{name}"))["content"]["data"][0]
                assert line["x"] == [3, 6]
                np.testing.assert_allclose(line["y"], [3 + value, 6 + value], rtol=1e-6)
            assert json.loads(client.get_window_data("7_visuals"))["content"]["src"].startswith("data:image/")
        finally:
            server.terminate()
            server.wait(20)

    def test_missing_server_is_one_warning(self, start, tmp_path, capsys):
        pytest.importorskip("visdom")
        visualizer = start(0, "--display_id=1", f"--display_port={free_port()}")
        log_steps(visualizer, 3, 6)
        visualizer.display_current_results(1, 6, visuals("red"))
        assert capsys.readouterr().err.count("does not answer") == 1
        assert len((tmp_path / "run/loss_log.txt").read_text().splitlines()) == 2


def test_train_writes_the_run_folder(run, market):
    run(
        "train",
        *train_flags(market, "--lr=0.001", "--serial_batches"),
        "--name=a",
        "--print_freq=3",
        "--display_freq=3",
    )
    folder = Path("checkpoints/a")
    options = json.loads((folder / "train_opt.json").read_text())
    assert options["options"]["lr"] == 0.001
    assert "lr" in options["changed_from_default"]
    assert "beta1" not in options["changed_from_default"]
    (line,) = (folder / "run_info.jsonl").read_text().splitlines()
    start = json.loads(line)
    assert "--lr=0.001" in start["command"]
    assert start["versions"]["torch"] == version("torch")
    assert start["device"].startswith("cpu")
    assert start["data"]["train"]["pairs"] == 8
    assert start["data"]["train"]["photos"] == 6
    assert set(start["data"]["train"]["csv_sha256"]) == {"market-pairs-train.csv", "market-annotation-train.csv"}
    assert set(start["git"]) in ({"commit", "changed"}, set())
    table = (folder / "parameters.txt").read_text()
    assert re.search(r"^G.encoder +[\d,]+$", table, re.MULTILINE)
    assert re.search(r"^D +[\d,]+$", table, re.MULTILINE)

    log = pd.read_json(folder / "loss_log.jsonl", lines=True)
    assert tuple(log.columns) == ("epoch", "iters", "total_iters", "time", *LOSS_NAMES)
    rows = losses_logged("a")
    assert log[["epoch", "iters", "total_iters"]].to_numpy().tolist() == [list(row[:3]) for row in rows]
    np.testing.assert_allclose(log[[*LOSS_NAMES]], [list(row[3].values()) for row in rows], atol=1e-6)

    page = (folder / "web/index.html").read_text()
    for column in ("source image", "source pose", "target image", "target pose", "fake_source", "fake_target"):
        assert f"<span>{column}</span>" in page
    sheet = np.array(Image.open(folder / "web/images/epoch001_iters000000003.jpg")).astype(int)
    pair = read_pairs(market / "market-pairs-train.csv")[1]
    for column, name in ((0, pair.source), (2, pair.target)):
        photo = np.array(Image.open(market / "train" / name)).astype(int)
        assert np.abs(sheet[128:256, column * 64 : column * 64 + 64] - photo).mean() < 12
    assert (sheet[:128, 64:128].max(2) < 60).mean() > 0.5  # a skeleton on black
