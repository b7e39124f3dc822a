"""Images on disk -> batches, in worker processes that decode them and compute the pixel metrics."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from data import find_dataset
from metrics.masks import pose_mask
from metrics.pairing import Problem, Problems, Sample
from metrics.pixel import score_pixels
from metrics.protocols import Protocol
from util.errors import UserError
from util.image import decode_photo, size_problem
from util.loader import BatchLoader

Item = tuple[Any, list[Problem]]  # data (None where it could not be read), and what is wrong with it


@dataclass
class PairDataset(Dataset):
    """Index of a sample -> its `index`, and `scores` by (protocol, pixel metric).

    With `keep_images` also what networks need: uint8 (3,H,W) `fakes` and `reals` and, where there are keypoints, bool
    (1,H,W) `masks`. Names are plural because a batch has the same ones.
    """

    samples: Sequence[Sample]
    target_dir: Path
    data_set: str
    protocols: Sequence[Protocol]
    metrics: Sequence[str]
    keypoints: Mapping[str, np.ndarray] | None  # photo name -> (18,2), for mask metrics
    keep_images: bool

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def item_bytes(self) -> int:
        """About how much memory an item takes."""
        height, width = find_dataset(self.data_set).stored_size
        return (2 * 3 + 1) * height * width if self.keep_images else 4096

    def __getitem__(self, index: int) -> Item:
        sample, size = self.samples[index], find_dataset(self.data_set).stored_size
        images, problems = read_images((sample.generated, self.target_dir / sample.target), size)
        if problems:
            return None, problems
        (fake, real), mask = images, None
        if self.keypoints is not None:
            mask = torch.from_numpy(pose_mask(self.keypoints[sample.target], size))[None]
        scores = {
            (protocol.name, metric): value
            for protocol in self.protocols
            for metric, value in score_pixels(fake, real, mask, self.metrics, protocol, self.data_set).items()
        }
        item = {"index": index, "scores": scores}
        if self.keep_images:
            item |= {"fakes": fake, "reals": real} | ({} if mask is None else {"masks": mask})
        return item, []


@dataclass
class PhotoDataset(Dataset):
    """Index of a photo -> uint8 (3,H,W). `size`: (H, W) that each photo must have."""

    folder: Path
    names: Sequence[str]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def item_bytes(self) -> int:
        """How much memory an item takes."""
        return 3 * self.size[0] * self.size[1]

    def __getitem__(self, index: int) -> Item:
        images, problems = read_images([self.folder / self.names[index]], self.size)
        return (None if problems else images[0]), problems


def read_images(paths: Iterable[Path], size: tuple[int, int]) -> tuple[list[Tensor], list[Problem]]:
    """uint8 (3,H,W) of each photo that can be decoded and has `size` (H, W), and a problem for each other."""
    images, problems = [], []
    for path in paths:
        try:
            image = decode_photo(path)
        except UserError as error:
            problems.append(Problem("unreadable", str(error)))
            continue
        if wrong := size_problem(image, size):
            problems.append(Problem("wrong size", f"{path}: {wrong}"))
        else:
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    return images, problems


def load_batches(
    dataset: PairDataset | PhotoDataset, batch_size: int, workers: int, title: str, problems: Problems
) -> Iterator[Any]:
    """The data set in order, in batches, with a progress bar. Its problems go to `problems`, which may raise."""
    with tqdm(total=len(dataset), desc=title, unit="image", disable=None) as bar:
        for batch, found in make_loader(dataset, batch_size, workers):
            bar.update(min(batch_size, len(dataset) - bar.n))
            problems.add(found)
            if batch is not None:
                yield batch
    problems.add([], last=True)


def make_loader(dataset: PairDataset | PhotoDataset, batch_size: int, workers: int) -> BatchLoader:
    """Items in batches; each of the `workers` processes has one thread and is at most two batches ahead."""
    return BatchLoader(dataset, batch_size * dataset.item_bytes, workers, _collate, batch_size=batch_size)


def _collate(items: Sequence[Item]) -> Item:
    """A batch of the data that could be read (None where nothing could be), and all problems."""
    data = [data for data, _ in items if data is not None]
    return default_collate(data) if data else None, [problem for _, problems in items for problem in problems]


def mean_image(photos: PhotoDataset, batch_size: int, workers: int, problems: Problems) -> Tensor:
    """The average photo, uint8 (3,H,W), rounded; UserError if no photo is usable. Others go to `problems`."""
    total, n = torch.zeros(3, *photos.size, dtype=torch.int64), 0
    for batch in load_batches(photos, batch_size, workers, "mean image", problems):
        total += batch.sum(0)
        n += len(batch)
    if not n:
        raise UserError("--baseline mean_image: no photo of --fid_real_path can be used")
    return (total / n).round().byte()
