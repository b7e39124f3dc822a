"""Images made without a network, to judge a score by: the mean of the training photos."""

import torch
from torch import Tensor

from metrics.pairing import Problems
from metrics.stream import PhotoDataset, load_batches
from util.errors import UserError


def mean_image(photos: PhotoDataset, batch_size: int, workers: int, problems: Problems) -> Tensor:
    """uint8 (3,H,W), rounded. Unusable photos go to `problems`, which may raise; UserError if none is usable."""
    total, n = torch.zeros(3, *photos.size, dtype=torch.int64), 0
    for batch in load_batches(photos, batch_size, workers, "mean image", problems):
        total += batch.sum(0)
        n += len(batch)
    if not n:
        raise UserError("--baseline mean_image: no photo of --fid_real_path can be used")
    return (total / n).round().byte()
