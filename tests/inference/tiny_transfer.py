"""A tiny network with formula weights, and a rendered walk as its input."""

from pathlib import Path

import numpy as np
import torch

from data.synthetic.people import RenderedPhoto
from data.synthetic.walk import render_walk
from inference.pose_transfer import PoseTransfer
from models import create_model
from models.published_weights import save_network
from tests.formula import fill_by_formula
from tests.helpers import COMMON, CPU, TINY_G, test_options

SIZE = (128, 64)
TINY_FLAGS = {flag.removeprefix("--"): value for flag, value in (flag.split("=") for flag in TINY_G)}


def write_tiny(checkpoints: Path) -> Path:
    """Writes the run `tiny`: epoch `latest`, and epoch 7 with other weights."""
    model = create_model(test_options(*COMMON[:2], *TINY_G, f"--checkpoints_dir={checkpoints}"), CPU, is_train=False)
    net = model.nets["G"]
    fill_by_formula(net)
    save_network(net, checkpoints / "tiny/latest_net_G.pth")
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.mul_(0.9)
    save_network(net, checkpoints / "tiny/7_net_G.pth")
    return checkpoints


def load_tiny(checkpoints: Path, **more: object) -> PoseTransfer:
    flags = {"checkpoints_dir": checkpoints, "dataset_mode": "market", "gpu_ids": -1, "batchSize": 2}
    return PoseTransfer.load("tiny", **flags, **TINY_FLAGS, **more)


def tiny_walk() -> list[RenderedPhoto]:
    """Six moments of a rendered walk: photos of the stored size with their keypoints."""
    return render_walk("market", 6, 1.0, 60.0, 0)


def keypoints_of(people: list[RenderedPhoto]) -> np.ndarray:
    return np.stack([photo.keypoints for photo in people])


def assert_close(generated: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to rounding: batches of other sizes are summed in another order."""
    np.testing.assert_allclose(np.asarray(generated, int), np.asarray(expected, int), atol=1)
