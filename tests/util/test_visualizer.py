"""What a training run shows and keeps: page, visdom (a real server), TensorBoard, validation, run folder, failures."""

import json
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.pairs import Pair, hold_out, read_pairs
from metrics.validation import validate
from models.dptn_model import DPTNModel
from tests.conftest import LOSS_NAMES, losses_logged, random_batch, train_flags
from util.checkpoint import load_state
from util.errors import UserError
from util.html import curve, write_training_page
from util.image import to_unit


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_page(run, market):
    run("train", *train_flags(market), "--name=a", "--print_freq=3", "--display_freq=6")
    page = Path("checkpoints/a/web/index.html").read_text()
    pictures = re.findall(r'<img[^>]*src="([^"]+)"', page)
    assert pictures == ["images/epoch002_iters000000012.jpg", "images/epoch001_iters000000006.jpg"]  # newest first
    assert all((Path("checkpoints/a/web") / picture).exists() for picture in pictures)
    assert page.count("<polyline") == len(LOSS_NAMES)
    for column in ("source photo", "source skeleton", "target photo", "target skeleton", "fake_source", "fake_target"):
        assert f"<span>{column}</span>" in page


def test_page_escapes_names(tmp_path):
    write_training_page(tmp_path / "index.html", "<script>x</script>", {"a<b": [(1, 2.0)]}, ["<i>"], [])
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert "a&lt;b" in page


def test_curve_scales_and_thins():
    points = re.search(r'points="([^"]+)"', curve([(0, 1.0), (5, float("nan")), (10, 3.0)]).render())[1].split()
    assert points == ["0.0,116.0", "300.0,4.0"]
    assert len(re.search(r'points="([^"]+)"', curve([(i, i) for i in range(5000)]).render())[1].split()) <= 500
    assert "polyline" not in curve([]).render()


def test_tensorboard(run, market):
    run("train", *train_flags(market), "--name=a", "--print_freq=3", "--tf_log", "--val_pairs=1")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("checkpoints/a/tf_log").Reload()
    for name in LOSS_NAMES:
        logged = [(row[2], row[3][name]) for row in losses_logged("a")]
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        np.testing.assert_allclose(seen, logged, atol=1e-5)
    assert len(events.Scalars("val_ssim")) == 2


class TestVisdom:
    def test_real_server(self, run, market, tmp_path):
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
            run(
                "train", *train_flags(market), "--name=a", "--print_freq=3", "--display_freq=6", "--display_id=7",
                f"--display_port={port}", "--display_env=dptn",
            )  # fmt: skip
            client = visdom.Visdom(port=port, env="dptn", raise_exceptions=True, use_incoming_socket=False)
            for name in LOSS_NAMES:
                line = json.loads(client.get_window_data(f"7_{name}"))["content"]["data"][0]
                rows = losses_logged("a")
                assert line["x"] == [row[2] for row in rows]
                np.testing.assert_allclose(line["y"], [row[3][name] for row in rows], atol=1e-5)
            assert json.loads(client.get_window_data("7_pictures"))["content"]["src"].startswith("data:image/")
        finally:
            server.terminate()
            server.wait(20)

    def test_server_that_is_not_there(self, run, market, capsys):
        pytest.importorskip("visdom")
        port = free_port()
        run("train", *train_flags(market), "--name=a", "--print_freq=3", "--display_id=1", f"--display_port={port}")
        assert capsys.readouterr().err.count("does not answer") == 1
        assert len(losses_logged("a")) == 4


class TestValidation:
    def test_whole_identities_are_held_out(self):
        pairs = [Pair(f"{p}_a.jpg", f"{p}_{v}.jpg") for p in range(10) for v in "bcd"] + [Pair("1_a.jpg", "2_a.jpg")]
        kept, held = hold_out(pairs, MarketDataset.identity, 7, seed=3)
        people = {MarketDataset.identity(name) for pair in held for name in pair}
        assert len(held) == 9
        assert len(people) == 3
        assert not people & {MarketDataset.identity(name) for pair in kept for name in pair}
        assert hold_out(pairs, MarketDataset.identity, 7, seed=3) == (kept, held)
        assert hold_out(pairs, MarketDataset.identity, 7, seed=4) != (kept, held)
        with pytest.raises(UserError, match="--val_pairs 30: too many for 31 training pairs of 10 identities"):
            hold_out(pairs, MarketDataset.identity, 30, seed=3)

    def test_identities(self):
        assert MarketDataset.identity("0228_c6s3_006817_02.jpg") == "0228"
        outfits = [f"fashionWOMENBlouses_Shirtsid00003372{n}_3back.jpg" for n in ("01", "03")]
        assert {FashionDataset.identity(name) for name in outfits} == {"fashionWOMENBlouses_Shirtsid00003372"}

    def test_run_keeps_the_best(self, run, market):
        flags = train_flags(market, "--niter=4", "--val_pairs=2", "--lr=0.01", "--batchSize=2")
        run("train", *flags, "--name=a")
        held = read_pairs("checkpoints/a/val_pairs.csv")
        assert len(held) >= 2
        lines = Path("checkpoints/a/val_log.txt").read_text().splitlines()
        assert len(lines) == 5
        scores = [float(re.search(r"ssim: (\S+)", line)[1]) for line in lines]
        best = [i for i, line in enumerate(lines) if line.endswith("best")][-1]
        assert scores[best] == max(scores)
        state = load_state(Path("checkpoints/a/latest_state.pt"))
        assert state["progress"]["best_ssim"] == pytest.approx(max(scores), abs=1e-6)
        assert Path("checkpoints/a/best_net_G.pth").exists()

    def test_validation_does_not_change_the_training(self, run, market):
        """Same pairs with and without: the same weights in the end."""
        run("train", *train_flags(market, "--val_pairs=2", "--batchSize=2", "--norm=batch"), "--name=a")
        held = set(read_pairs("checkpoints/a/val_pairs.csv"))
        csv = market / "market-pairs-train.csv"
        kept = [pair for pair in read_pairs(csv) if pair not in held]
        people = {name for pair in held for name in pair}
        kept = [pair for pair in kept if not people & set(pair)]
        csv.write_text("\n".join(["from,to", *(",".join(pair) for pair in kept)]) + "\n")
        run("train", *train_flags(market, "--batchSize=2", "--norm=batch"), "--name=b")
        a, b = (torch.load(f"checkpoints/{name}/latest_net_G.pth", weights_only=True) for name in "ab")
        assert all(torch.equal(a[key], b[key]) for key in a)

    def test_numbers(self):
        """Against scikit-image, on a model that returns known images."""
        batch = random_batch(2)

        class Model:
            def set_input(self, given):
                self.given = given

            def test(self):
                return (to_unit(self.given["target_image"]) * 0.9).clamp(-1, 1)

        values = validate(Model(), [batch])
        rows = []
        for image in batch["target_image"].permute(0, 2, 3, 1).double().numpy():
            fake = np.round((image / 127.5 - 1) * 0.9 * 127.5 + 127.5) / 255
            how = {"channel_axis": 2, "data_range": 1, "gaussian_weights": True, "use_sample_covariance": False}
            ssim = structural_similarity(image / 255, fake, sigma=1.5, **how)
            psnr = peak_signal_noise_ratio(image / 255, fake, data_range=1)
            rows.append((np.abs(image / 255 - fake).mean(), psnr, ssim))
        np.testing.assert_allclose(list(values.values()), np.mean(rows, 0), rtol=1e-3)


def test_run_folder(run, market):
    run("train", *train_flags(market, "--lr=0.001"), "--name=a")
    folder = Path("checkpoints/a")
    options = json.loads((folder / "train_opt.json").read_text())
    assert options["options"]["lr"] == 0.001
    assert "lr" in options["changed_from_default"]
    assert "beta1" not in options["changed_from_default"]
    (line,) = (folder / "run_info.jsonl").read_text().splitlines()
    facts = json.loads(line)
    assert "--lr=0.001" in facts["command"]
    assert facts["versions"]["torch"] == version("torch")
    assert facts["device"].startswith("cpu")
    assert facts["data"]["train"]["pairs"] == 8
    assert facts["data"]["train"]["photos"] == 6
    assert set(facts["data"]["train"]["csv_sha256"]) == {"market-pairs-train.csv", "market-annotation-train.csv"}
    assert set(facts["git"]) in ({"commit", "changed"}, set())
    table = (folder / "parameters.txt").read_text()
    assert re.search(r"^G.encoder +[\d,]+$", table, re.MULTILINE)
    assert re.search(r"^D +[\d,]+$", table, re.MULTILINE)


class TestFailures:
    def test_non_finite_loss(self, run, market, monkeypatch):
        """The run stops before it saves: the last good state and weights stay."""
        original, done = DPTNModel.optimize_parameters, [0]

        def optimize(self):
            done[0] += 1
            if done[0] == 5:  # the third step of the second epoch
                with torch.no_grad():
                    self.net_G.decoder.output.conv.bias.fill_(float("nan"))
            original(self)

        monkeypatch.setattr(DPTNModel, "optimize_parameters", optimize)
        with pytest.raises(UserError, match="non-finite loss in the step that ends at 10 samples") as caught:
            run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
        message = str(caught.value)
        assert all(name in message for name in LOSS_NAMES)
        assert message.count(".jpg") == 4
        state = load_state(Path("checkpoints/a/latest_state.pt"))
        assert state["progress"]["total"] == 8
        for tensor in torch.load("checkpoints/a/latest_net_G.pth", weights_only=True).values():
            assert torch.isfinite(tensor).all()

    def test_non_finite_weights_are_not_saved(self, run, market, monkeypatch):
        """A finite loss with a gradient that is not."""
        original, done = DPTNModel.step, [0]

        def step(self, name):
            done[0] += 1
            if done[0] == 8:  # the generator's in the fourth step
                self.net_G.decoder.output.conv.bias.grad[0] = float("inf")
            original(self, name)

        monkeypatch.setattr(DPTNModel, "step", step)
        with pytest.raises(UserError, match="network G has NaN or infinite weights"):
            run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
        assert load_state(Path("checkpoints/a/latest_state.pt"))["progress"]["total"] == 6
        assert torch.isfinite(
            torch.load("checkpoints/a/latest_net_G.pth", weights_only=True)["outconv.conv1.bias"]
        ).all()

    def test_photo_that_breaks_during_the_run(self, run, command, market):
        run("train", *train_flags(market), "--name=a")
        victim = read_pairs(market / "market-pairs-train.csv")[3].source
        path = market / "train" / victim
        path.write_bytes(path.read_bytes()[:-300])
        done = command("train.py", "--name=a", "--continue_train", "--niter=5", "--nThreads=2")
        assert done.returncode == 2
        assert f"{victim}: photo cannot be decoded" in done.stderr
        assert "Traceback" not in done.stderr

    def test_quiet_without_a_terminal(self, command, market):
        done = command("train.py", *train_flags(market), "--name=a", "--print_freq=3")
        assert done.returncode == 0
        assert "sample/s" not in done.stderr
        assert done.stdout.count("total iters:") == 4

    def test_progress_bar(self, run, market, monkeypatch, capsys):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        run("train", *train_flags(market), "--name=a")
        bar = capsys.readouterr().err
        assert re.search(r"epoch 2/2: 100%.*8/8|epoch 2/2:.*6/6.*sample.*data \d\.\d{3} s, step \d\.\d{3} s", bar)


def test_sheet_shows_the_batch(run, market):
    run("train", *train_flags(market, "--serial_batches"), "--name=a", "--display_freq=3")
    sheet = np.array(Image.open("checkpoints/a/web/images/epoch001_iters000000003.jpg")).astype(int)
    pair = read_pairs(market / "market-pairs-train.csv")[1]
    for column, name in ((0, pair.source), (2, pair.target)):
        photo = np.array(Image.open(market / "train" / name)).astype(int)
        assert np.abs(sheet[128:256, column * 64 : column * 64 + 64] - photo).mean() < 12
    assert (sheet[:128, 64:128].max(2) < 60).mean() > 0.5  # a skeleton on black
