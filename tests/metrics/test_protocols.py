"""metrics/protocols.py: each protocol against a plain implementation of its switches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from metrics import evaluation, metrics
from metrics.evaluation import EvaluationSetup, evaluate, load_networks
from metrics.pairing import Problems, Sample
from metrics.protocols import PROTOCOLS, View
from metrics.stream import PairDataset, PhotoDataset, read_pair
from tests.formula import formula_images
from tests.metrics.conftest import PIXELS, TinyInception, read_jsonl, read_per_image
from tests.metrics.reference_metrics import opencv_resize, protocol_images, protocol_scores

# (H, W) of generated images and photos, where it is not the stored size: as the papers' files, or smaller
SIZES = {"gfla": ((256, 256), (330, 225)), "pidm": ((256, 256), (330, 225)), "cfld": ((320, 320), (330, 225)),
         "pcdms": ((320, 320), (256, 256))}  # fmt: skip


def write_files(folder: Path, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Three generated images and photos as PNG files, uint8 (H,W,3)."""
    images = []
    for kind, size in zip(("generated", "photo"), SIZES.get(protocol, [(256, 176)] * 2)):
        (folder / kind).mkdir()
        files = formula_images(f"metric_{kind}", (3, 3, *size)) * 0.3 + formula_images("metric_low", (3, 3, 1, 1))
        # smooth steps, so that filters matter and images are alike
        files += 0.4 * np.sign(np.sin(np.linspace(0, 60, size[0])))[:, None] * np.cos(np.linspace(0, 25, size[1]))
        images.append(np.round((np.clip(files, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1))
        for number, image in enumerate(images[-1]):
            Image.fromarray(image).save(folder / kind / f"{number}.png")
    return images[0], images[1]


def samples(folder: Path) -> list[Sample]:
    return [Sample(None, f"{number}.png", folder / f"generated/{number}.png") for number in range(3)]


def test_protocols_are_named_after_their_keys():
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())
    assert list(PROTOCOLS) == ["dptn", "standard", "patn", "gfla", "pidm", "cfld", "pcdms"]


def test_margin_pads_fashion_to_a_square_under_dptn_and_patn_only():
    height, width = FashionDataset.stored_size
    assert width + 2 * PROTOCOLS["dptn"].margin("fashion") == height == 256
    assert {name: protocol.margin("fashion") for name, protocol in PROTOCOLS.items() if protocol.pad} == {
        "dptn": 40, "patn": 40,
    }  # fmt: skip
    assert not any(protocol.margin("market") for protocol in PROTOCOLS.values())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_pixel_metrics_equal_a_plain_implementation(name, tmp_path):
    generated, photos = write_files(tmp_path, name)
    pairs = PairDataset(samples(tmp_path), tmp_path / "photo", "fashion", [PROTOCOLS[name]], PIXELS, None, True)
    for index in range(3):
        item, problems = pairs[index]
        assert not problems
        fake, real = protocol_images(name, generated[index], photos[index])
        (seen,) = item["fakes"].values()
        difference = np.abs(seen.numpy().transpose(1, 2, 0) - fake.astype(float))
        if name == "cfld":  # a level that is whole up to rounding may be truncated to the one below
            assert difference.max() <= 1
            assert difference.mean() < 0.01
            fake = seen.numpy().transpose(1, 2, 0)
        else:
            assert difference.max() < 5e-3  # OpenCV's filter is float32, too
        expected = protocol_scores(name, fake, real)
        wanted = [metric for metric in PIXELS if PROTOCOLS[name].has(metric)]
        assert [key[1] for key in item["scores"]] == wanted
        for metric in wanted:
            assert item["scores"][name, metric] == pytest.approx(expected[metric], abs=1e-5), metric


def test_opencv_bicubic_is_not_clipped(tmp_path):
    edges = np.zeros((320, 320, 3), np.uint8)
    edges[100:200, 100:200] = 255
    Image.fromarray(edges).save(tmp_path / "a.png")
    (fake, _), problems = read_pair(tmp_path / "a.png", tmp_path / "a.png", PROTOCOLS["pcdms"].view("fashion"))
    assert not problems
    assert fake.min() < -1
    assert fake.max() > 256


def test_patns_strip_is_cut_into_target_and_generated(tmp_path):
    panels = [np.full((256, 176, 3), level, np.uint8) for level in (1, 2, 3, 4, 5)]
    Image.fromarray(np.concatenate(panels, axis=1)).save(tmp_path / "strip.png")
    view = PROTOCOLS["patn"].view("fashion")
    images, problems = read_pair(tmp_path / "strip.png", tmp_path / "no photo", view)
    assert not problems
    assert [image.unique().tolist() for image in images] == [[5], [3]]
    assert [image.shape for image in images] == [(3, 256, 176)] * 2
    assert read_pair(tmp_path / "strip.png", tmp_path / "strip.png", View((256, 176)))[1]


def make_setup(folder: Path, names: list[str], wanted: list[str], batch_size: int = 2) -> EvaluationSetup:
    protocols = [PROTOCOLS[name] for name in names]
    pairs = PairDataset(samples(folder), folder / "photo", "fashion", protocols, wanted, None, keep_images=True)
    reals = PhotoDataset(folder / "photo", [f"{number}.png" for number in range(3)], View((256, 176)))
    return EvaluationSetup(pairs, reals, None, folder / "cache", torch.device("cpu"), "fp32", batch_size, 0)


@pytest.mark.parametrize("name", ["dptn", "gfla", "pidm", "cfld", "pcdms"])
def test_lpips_sees_the_size_and_the_levels_of_the_paper(name, tmp_path, alexnet_file, formula_lpips):
    """By the lpips package itself. PIDM shrinks its square images by OpenCV's bilinear filter first."""
    generated, photos = write_files(tmp_path, name)
    setup = make_setup(tmp_path, [name], ["lpips"])
    networks = load_networks(setup, {"alexnet": str(alexnet_file)}, False)
    results = evaluate(setup, networks, Problems(False)).measurements
    expected = []
    for pair in zip(generated, photos):
        images = protocol_images(name, *pair)
        if name == "pidm":
            images = [opencv_resize(image, (256, 176), 2) for image in images]
        tensors = [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None] for image in images]
        levels = [tensor / 255 if name == "pcdms" else tensor / 127.5 - 1 for tensor in tensors]
        expected.append(formula_lpips.package(*levels).item())
    assert results[name]["lpips"].value == pytest.approx(np.mean(expected), rel=2e-3 if name == "cfld" else 1e-4)


@pytest.mark.parametrize("name", ["gfla", "pidm", "cfld", "pcdms"])
def test_fid_sees_the_images_of_the_paper(name, tmp_path, tiny):
    generated, photos = write_files(tmp_path, name)
    setup = make_setup(tmp_path, [name], ["fid"])
    results = evaluate(setup, load_networks(setup, {"torchvision": ""}, False), Problems(False)).measurements
    sides = []
    for number in range(2):
        images = [protocol_images(name, *pair)[number] for pair in zip(generated, photos)]
        if name == "pidm":
            images = [opencv_resize(image, (256, 176), 2) for image in images]
        features = TinyInception("torchvision", "")(torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))).double()
        sides.append(evaluation.fid.Gaussian(3, features.mean(0).numpy(), np.cov(features.numpy(), rowvar=False)))
    # TinyInception averages quarters of the image, which leaves 1e-3 of rounding
    assert results[name]["fid"].value == pytest.approx(evaluation.fid.frechet_distance(*sides), rel=2e-2)
    assert (results[name]["fid"].n, results[name]["fid"].n_real) == (3, 3)


def test_tail_in_the_order_of_names_is_dropped(call, flags, results, market, tiny, monkeypatch):
    """LPIPS with batches of 3: the last 2 of 8 results; FID with batches of 4: the last 2 of 6 photos."""
    monkeypatch.setitem(PROTOCOLS, "gfla", dataclasses.replace(PROTOCOLS["gfla"], lpips_batch=3, fid_batch=4))
    wanted = ["--metrics=lpips,fid,l1", "--protocol=gfla,dptn", f"--per_image={market}/p.csv", "--batch_size=5"]
    done = call(metrics, *flags, *wanted)
    assert done.returncode == 0, done.stderr
    gfla, dptn = (record["metrics"] for record in read_jsonl(results))
    rows = read_per_image(market / "p.csv")
    by_name = rows.iloc[rows["generated"].map(lambda path: Path(path).name).argsort()]
    kept = by_name["gfla:lpips"].astype(float).iloc[:6]
    assert gfla["lpips"]["value"] == pytest.approx(kept.mean())
    assert gfla["lpips"]["value"] != pytest.approx(dptn["lpips"]["value"])
    assert [gfla["lpips"]["n"], gfla["fid"]["n"], gfla["fid"]["n_real"]] == [6, 8, 4]
    assert [dptn["lpips"]["n"], dptn["fid"]["n"], dptn["fid"]["n_real"]] == [8, 8, 6]
    assert gfla["l1"]["n"] == 8


def test_metric_that_a_protocol_lacks_is_not_measured(call, flags, results):
    done = call(metrics, *flags, "--metrics=psnr,l1", "--protocol=patn,dptn")
    assert done.returncode == 0, done.stderr
    patn, dptn = (record["metrics"] for record in read_jsonl(results))
    assert patn["psnr"] == {"n": 0, "reason": "the code of patn has no psnr"}
    assert patn["l1"]["value"] == pytest.approx(2 * dptn["l1"]["value"])
    done = call(metrics, *flags, "--metrics=psnr", "--protocol=patn")
    assert done.returncode == 2
    assert "--protocol patn has none of --metrics; it has ssim_256, l1, mask_ssim, is" in done.stderr


def test_inception_score_of_patn_is_an_error_that_says_why(call, flags):
    done = call(metrics, *flags, "--metrics=is", "--protocol=patn")
    assert done.returncode == 2
    assert "PATN's Inception Score needs the TensorFlow 1 graph of December 2015" in done.stderr


def test_other_size_is_refused_where_the_protocol_does_not_resize(call, flags, results):
    for path in results.iterdir():
        Image.open(path).resize((32, 64)).save(path)
    for protocol, status in (("dptn", 2), ("standard", 2), ("patn", 2), ("gfla", 0), ("cfld", 0)):
        done = call(metrics, *flags, "--metrics=ssim_256", f"--protocol={protocol}")
        assert done.returncode == status, done.stderr
        assert ("wrong size" in done.stderr) == (status == 2)


def test_views_have_the_sizes_of_the_data_set():
    assert {name: protocol.view("fashion").size for name, protocol in PROTOCOLS.items()} == dict.fromkeys(
        PROTOCOLS, FashionDataset.stored_size
    ) | {"gfla": (256, 256), "pidm": (256, 256)}
    assert {protocol.view("market").size for protocol in PROTOCOLS.values()} == {MarketDataset.stored_size}
