"""Images that need no network, so that a score can be judged: the mean of the training photos."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from metrics.pairing import Problems
from metrics.stream import PhotoBatches, make_loader
from util.errors import UserError


def mean_image(
    folder: Path, names: Sequence[str], size: tuple[int, int], batch_size: int, workers: int, problems: Problems
) -> Tensor:
    """uint8 (3,H,W), rounded. Photos that cannot be used go to `problems`, which may raise; UserError if none can."""
    total, n = torch.zeros(3, *size, dtype=torch.int64), 0
    with tqdm(total=len(names), desc="mean image", unit="image", disable=None) as bar:
        for photos, wrong in make_loader(PhotoBatches(folder, names, size, batch_size), workers):
            bar.update(min(batch_size, len(names) - bar.n))
            problems.add(wrong)
            total += photos.sum(0)
            n += len(photos)
    problems.add([], last=True)
    if not n:
        raise UserError(f"--baseline mean_image: no photo in {folder} can be used")
    return (total / n).round().byte()
