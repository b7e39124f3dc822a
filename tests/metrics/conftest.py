"""Shared by the tests of metrics/: formula weights, small networks, a folder of results, readers of what is written."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.models.alexnet import AlexNet
from torchvision.models.inception import Inception3

from data.pairs import read_pairs, result_name
from metrics import evaluation
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.reid_network import ReidNetwork
from tests.formula import formula_array, formula_images
from tests.helpers import REPOSITORY
from util.errors import UserError

GOLDENS = np.load(REPOSITORY / "tests/goldens/metric_goldens.npz")
REID_GOLDENS = np.load(REPOSITORY / "tests/goldens/reid_goldens.npz")
PIXELS = ["psnr", "ssim", "ssim_256", "mae", "l1"]


def golden_images(h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Generated images and targets, uint8 (3,3,h,w)."""
    real, other = (
        np.round((formula_images(name, (3, 3, h, w)) + 1) * 127.5).astype(np.uint8)
        for name in ("metric_gt", "metric_fake")
    )
    fake = (3 * real.astype(int) + other) // 4
    return torch.from_numpy(fake.astype(np.uint8)), torch.from_numpy(real)


def fill_by_formula(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.asarray(formula_array(key, tuple(value.shape)))) for key, value in state.items()}


@pytest.fixture(scope="package")
def alexnet_file(tmp_path_factory) -> Path:
    state = nn.ModuleDict({"features": AlexNet().features}).state_dict()
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(fill_by_formula(state), path)
    return path


@pytest.fixture(scope="package")
def formula_lpips(alexnet_file) -> LPIPS:
    return LPIPS(str(alexnet_file))


@pytest.fixture(scope="package")
def inception_states() -> dict[str, dict[str, torch.Tensor]]:
    """By Protocol.inception: both networks have the same names and shapes but for their classes."""
    torchvision = fill_by_formula(Inception3(aux_logits=False, init_weights=False).state_dict())
    torchvision["AuxLogits.fc.bias"] = torch.zeros(1000)  # as in the published file; the network has no such layer
    classes = fill_by_formula({"fc.weight": torch.empty(1008, 2048), "fc.bias": torch.empty(1008)})
    return {"torchvision": torchvision, "pytorch-fid": {**torchvision, **classes}}


@pytest.fixture(scope="package")
def formula_inceptions(inception_states, tmp_path_factory) -> dict[str, Inception]:
    nets = {}
    for kind, state in inception_states.items():
        path = tmp_path_factory.mktemp("weights") / f"{kind}.pth"
        torch.save(state, path)
        nets[kind] = Inception(kind, str(path))
        path.unlink()
    return nets


class TinyInception(nn.Module):
    """Replaces Inception: mean colors of the quarters of an image. Counts the images it saw."""

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
    """Replaces LPIPS: the mean difference."""

    def __init__(self, _weights: str) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(1.0))

    def forward(
        self, fakes: torch.Tensor, reals: torch.Tensor, masks: torch.Tensor | None = None, from_zero: bool = False
    ) -> torch.Tensor:
        difference = (fakes.float() - reals.float()).abs()
        return (difference if masks is None else difference * masks).flatten(1).mean(1)


@pytest.fixture
def tiny(monkeypatch) -> type[TinyInception]:
    """Small networks in place of the real ones; returns the class that counts the images FID's network saw."""
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


def read_jsonl(results: Path) -> list[dict]:
    return [json.loads(line) for line in (results.parent / "metrics.jsonl").read_text().splitlines()]


def read_per_image(path: Path) -> pd.DataFrame:
    """The csv of --per_image as text; an empty cell is ""."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def save(image: np.ndarray, path: Path) -> None:
    """(3,H,W) of gray levels."""
    Image.fromarray(image.round().astype(np.uint8).transpose(1, 2, 0)).save(path)


def read_pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="package")
def reid_state() -> dict[str, torch.Tensor]:
    """The formula weights of the goldens of fast-reid, under its newest keys. The classifier knows 12,029 people."""
    keys = json.loads((REPOSITORY / "tests/goldens/reid_keys.json").read_text())
    shapes = {key: tuple(12_029 if length == "N" else length for length in shape) for key, shape in keys.items()}
    state = {key: np.asarray(formula_array(key, shape)) for key, shape in shapes.items() if key != "heads.weight"}
    state |= {key: value * np.float32(0.25) for key, value in state.items() if key.endswith("bn3.weight")}
    state |= {f"heads.bottleneck.0.running_{name}": REID_GOLDENS[f"neck_{name}"] for name in ("mean", "var")}
    classifier = torch.zeros(1, 1).expand(shapes["heads.weight"])
    return {key: torch.from_numpy(value) for key, value in state.items()} | {"heads.weight": classifier}


@pytest.fixture(scope="package")
def reid_file(reid_state, tmp_path_factory) -> Path:
    """A checkpoint as fast-reid writes it."""
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    schedule = {"milestones": Counter({40: 1, 90: 1}), "last_epoch": 3}  # as of torch's MultiStepLR
    torch.save({"model": reid_state, "optimizer": {}, "lr_sched": schedule, "epoch": 119, "metric": 0.9}, path)
    return path


@pytest.fixture(scope="package")
def reid_network(reid_file) -> ReidNetwork:
    return ReidNetwork(reid_file)
