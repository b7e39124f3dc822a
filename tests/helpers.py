"""Shared by the tests: options, a small data set on disk, networks filled by formula, random batches, logs."""

import os
import re
import shutil
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import create_model
from models.base_model import BaseModel
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.formula import fill_model_by_formula, formula_images

COMMON = ["--gpu_id=-1", "--dataset_mode=market", "--nThreads=0"]
LOG_LINE = re.compile(r"\(epoch: (\d+), iters: (\d+), total iters: (\d+), time: \d+\.\d{3}\)((?: \w+: -?\d+\.\d{6})+)")
REPOSITORY = Path(__file__).parent.parent
CPU = torch.device("cpu")
TINY_G = ["--ngf=8", "--layers_g=2", "--num_blocks=1", "--num_CABs=1", "--num_TTBs=1"]
NO_VGG = ["--lambda_content=0", "--lambda_style=0"]  # VGG19 takes most of a tiny network's step
CXX = os.environ.get("CXX") or "g++"
compiles = pytest.mark.skipif(not shutil.which(CXX.split()[0]), reason="needs a C++ compiler")
# the published order of the log
LOSS_NAMES = (
    "app_gen_s", "content_gen_s", "style_gen_s",
    "app_gen_t", "ad_gen_t", "dis_img_gen_t", "content_gen_t", "style_gen_t",
)  # fmt: skip
TINY = [*TINY_G, "--ndf=8", "--dis_layers=2", "--vgg_weights=random"]


def train_options(*flags: str) -> Namespace:
    return TrainOptions().parse(["--name=x", "--gpu_ids=-1", "--vgg_weights=random", *flags])


def test_options(*flags: str) -> Namespace:
    return TestOptions().parse(["--name=x", "--gpu_ids=-1", *flags])


test_options.__test__ = False  # a helper, not a test


def formula_model(*flags: str) -> BaseModel:
    """A training model with formula weights in generator, discriminator and VGG19."""
    initialization = "--init_type=normal"  # the fastest one; all of its weights are replaced
    model = create_model(train_options(initialization, *flags), CPU, is_train=True)
    fill_model_by_formula(model)
    return model


def cut_vgg(model: BaseModel) -> BaseModel:
    """Leave VGG19 up to relu2_2: two content features and one style feature, a quarter of the operations."""
    model.vgg.features = model.vgg.features[:9]
    return model


def random_batch(n: int = 2, h: int = 64, w: int = 32, seed: int = 0) -> dict:
    """Images and keypoints in the form of a loader's batch."""
    random = np.random.RandomState(seed)
    batch = {}
    for role in ("source", "target"):
        smooth = (formula_images(role, (n, 3, h, w), seed) + 1) * 127.5
        batch[f"{role}_image"] = torch.from_numpy(smooth.astype(np.uint8))
        keypoints = np.stack([random.randint(0, h, (n, 18)), random.randint(0, w, (n, 18))], -1).astype(np.float32)
        keypoints[random.rand(n, 18) < 0.2] = np.nan
        batch[f"{role}_keypoints"] = torch.from_numpy(keypoints)
        batch[f"{role}_name"] = [f"{role}{i}.jpg" for i in range(n)]
    return batch


def write_keypoints(path: Path, rows: dict[str, np.ndarray], separator: str = ":") -> None:
    lines = ["name:keypoints_y:keypoints_x"]
    lines += [separator.join((name, str(k[:, 0].tolist()), str(k[:, 1].tolist()))) for name, k in rows.items()]
    path.write_text("\n".join(lines) + "\n")


def smooth(width: int, height: int) -> Image.Image:
    """An image whose red grows with the column and whose green grows with the row. JPEG changes it by a few levels."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def make_market(root: Path, photos: int = 6, pairs: int = 8, phases: Sequence[str] = ("train", "test")) -> Path:
    """A small data set in the layout of Market-1501, with smooth images and random keypoints."""
    random = np.random.RandomState(0)
    for phase in phases:
        (root / phase).mkdir(parents=True, exist_ok=True)
        names = [f"{i // 2:04d}_c{i % 2 + 1}s1_{phase}.jpg" for i in range(photos)]  # two of each person
        pixels = ((formula_images(phase, (photos, 3, 128, 64)) + 1) * 127.5).astype(np.uint8)
        for name, image in zip(names, pixels):
            Image.fromarray(image.transpose(1, 2, 0)).save(root / phase / name)
        joints = {n: np.stack([random.randint(0, 128, 18), random.randint(0, 64, 18)], 1) for n in names}
        for keypoints in joints.values():
            keypoints[random.rand(18) < 0.2] = -1
        write_keypoints(root / f"market-annotation-{phase}.csv", joints, ": ")
        views = [(a, b) for a, b in ((0, 1), (1, 0), (0, 0), (1, 1)) for _ in range(photos // 2)]
        rows = [(names[i * 2 % photos + a], names[i * 2 % photos + b]) for i, (a, b) in enumerate(views[:pairs])]
        lines = ["from,to", *(f"{a},{b}" for a, b in rows)]
        (root / f"market-pairs-{phase}.csv").write_text("\n".join(lines) + "\n")
    return root


def train_flags(market: Path, *flags: str) -> list[str]:
    return [*COMMON, *TINY, *NO_VGG, f"--dataroot={market}", "--batchSize=3", "--niter=1", "--niter_decay=1", *flags]


def save_random_generator(name: str = "a", seed: int = 0) -> None:
    """checkpoints/NAME/latest_net_G.pth of a tiny network with random weights, for tests that need no training."""
    torch.manual_seed(seed)
    create_model(test_options(*TINY_G, f"--name={name}"), CPU, is_train=False).save_networks("latest")


def losses_logged(name: str) -> list[tuple]:
    """(epoch, iters, total iters, losses by name) of each line of a run's loss_log.txt."""
    rows = []
    for line in Path(f"checkpoints/{name}/loss_log.txt").read_text().splitlines():
        match = LOG_LINE.fullmatch(line)
        assert match, line
        pairs = re.findall(r"(\w+): (-?\d+\.\d+)", match[4])
        rows.append((*map(int, match.group(1, 2, 3)), {name: float(value) for name, value in pairs}))
    return rows
