"""Images on disk -> batches, in worker processes that decode them and compute the pixel metrics."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metrics.masks import pose_mask
from metrics.pairing import Problem, Sample
from metrics.pixel import score_pixels
from metrics.protocols import DataSet, Protocol
from util.errors import UserError
from util.image import decode_photo, size_problem
from util.parallel import ignore_signals_in_worker


class Images(NamedTuple):
    """What networks look at."""

    fakes: Tensor  # uint8 (n,3,H,W)
    reals: Tensor  # the same of the targets
    masks: Tensor | None  # bool (n,1,H,W)


class Batch(NamedTuple):
    """n pairs that could be read, and what is wrong with the others."""

    numbers: np.ndarray  # (n,) which samples these are
    scores: dict[tuple[str, str], np.ndarray]  # (protocol, pixel metric) -> float64 (n,)
    images: Images | None  # where they are wanted
    problems: list[Problem]


class PairBatches(Dataset):
    """Number of a batch -> Batch.

    `keypoints` (photo name -> (18,2)): for masks, where these are wanted. `keep_images`: give them, for networks.
    """

    def __init__(
        self, samples: Sequence[Sample], target_dir: Path, data_set: DataSet, batch_size: int,
        protocols: Sequence[Protocol], metrics: Sequence[str], keypoints: Mapping[str, np.ndarray] | None,
        keep_images: bool,
    ) -> None:  # fmt: skip
        self.samples, self.target_dir, self.data_set, self.batch_size = samples, target_dir, data_set, batch_size
        self.protocols, self.metrics, self.keypoints = protocols, metrics, keypoints
        self.keep_images = keep_images

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        first = index * self.batch_size
        numbers, pairs, masks, problems = [], [], [], []
        for number, sample in enumerate(self.samples[first : first + self.batch_size], start=first):
            paths = (sample.generated, self.target_dir / sample.target)
            pair, wrong = read_images(paths, self.data_set.size)
            problems += wrong
            if not wrong:
                numbers.append(number)
                pairs.append(pair)
                if self.keypoints is not None:
                    masks.append(pose_mask(self.keypoints[sample.target], self.data_set.size))
        if not numbers:
            return Batch(np.array([], int), {}, None, problems)
        mask = torch.from_numpy(np.stack(masks))[:, None] if masks else None
        images = Images(*torch.stack(pairs).unbind(1), mask)
        scores = {
            (protocol.name, metric): values.numpy()
            for protocol in self.protocols
            for metric, values in score_pixels(*images, self.metrics, protocol, self.data_set).items()
        }
        return Batch(np.array(numbers), scores, images if self.keep_images else None, problems)


class PhotoBatches(Dataset):
    """Number of a batch -> uint8 (n,3,H,W), and what is wrong with the photos left out."""

    def __init__(self, folder: Path, names: Sequence[str], size: tuple[int, int], batch_size: int) -> None:
        self.folder, self.names, self.size, self.batch_size = folder, names, size, batch_size

    def __len__(self) -> int:
        return -(-len(self.names) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Tensor, list[Problem]]:
        names = self.names[index * self.batch_size : (index + 1) * self.batch_size]
        return read_images([self.folder / name for name in names], self.size)


def read_images(paths: Iterable[Path], size: tuple[int, int]) -> tuple[Tensor, list[Problem]]:
    """uint8 (n,3,H,W) of those that can be read and are of `size`, and a problem for each other."""
    images, problems = [torch.empty(0, 3, *size, dtype=torch.uint8)], []
    for path in paths:
        try:
            image = decode_photo(path)
        except UserError as error:
            problems.append(Problem("unreadable", str(error)))
            continue
        if wrong := size_problem(image, size):
            problems.append(Problem("wrong size", f"{path}: {wrong}"))
        else:
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()[None])
    return torch.cat(images), problems


def make_loader(batches: Dataset, workers: int) -> DataLoader:
    """Batches in order, made by `workers` processes of one thread each; at most two wait for each process."""
    return DataLoader(
        batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is, worker_init_fn=_start_worker
    )  # fmt: skip


def _as_it_is(batch: object) -> object:
    return batch


def _start_worker(_number: int) -> None:
    ignore_signals_in_worker()
