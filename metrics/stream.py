"""Images on disk -> batches, in worker processes that decode them and compute the pixel metrics."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from metrics.protocols import Protocol, View
from metrics.resize import RESIZE, from_pil
from util.errors import UserError
from util.image import decode_photo, photo_size, size_problem
from util.loader import BatchLoader

Item = tuple[Any, list[Problem]]  # data (None where it could not be read), and what is wrong with it
STRIP = 5  # images in PATN's strips: source, its pose, target, its pose, generated


@dataclass
class PairDataset(Dataset):
    """Index of a sample -> its `index`, and `scores` by (protocol, pixel metric).

    With `keep_images` also what networks need: `fakes` and `reals` (3,H,W) by the protocols' views, uint8 or, where a
    filter makes them so, float32 levels; and bool (1,H,W) `masks` where there are keypoints. The keys are plural,
    because `default_collate` keeps them for a batch.
    """

    samples: Sequence[Sample]
    target_dir: Path
    dataset_mode: str
    protocols: Sequence[Protocol]
    metrics: Sequence[str]
    keypoints: Mapping[str, np.ndarray] | None  # photo name -> (18,2), for mask metrics
    keep_images: bool

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def item_bytes(self) -> int:
        """About how much memory an item takes."""
        return sum(2 * view.image_bytes + math.prod(view.size) for view in self._views) if self.keep_images else 4096

    @cached_property
    def _views(self) -> dict[View, list[Protocol]]:
        """View -> the protocols that share it."""
        views = defaultdict(list)
        for protocol in self.protocols:
            views[protocol.view(self.dataset_mode)].append(protocol)
        return views

    def __getitem__(self, index: int) -> Item:
        sample, mask = self.samples[index], None
        if self.keypoints is not None:
            size = find_dataset(self.dataset_mode).stored_size
            mask = torch.from_numpy(pose_mask(self.keypoints[sample.target], size))[None]
        scores, fakes, reals = {}, {}, {}
        for view, protocols in self._views.items():
            images, problems = read_pair(sample.generated, self.target_dir / sample.target, view)
            if problems:
                return None, problems
            fakes[view], reals[view] = images
            for protocol in protocols:
                wanted = [metric for metric in self.metrics if protocol.has(metric)]
                found = score_pixels(*images, mask, wanted, protocol, self.dataset_mode)
                scores |= {(protocol.name, metric): value for metric, value in found.items()}
        item = {"index": index, "scores": scores}
        if self.keep_images:
            item |= {"fakes": fakes, "reals": reals} | ({} if mask is None else {"masks": mask})
        return item, []


@dataclass
class PhotoDataset(Dataset):
    """Index of a photo -> (3,H,W) as `view` shows it."""

    folder: Path
    names: Sequence[str]
    view: View

    def __len__(self) -> int:
        return len(self.names)

    @property
    def item_bytes(self) -> int:
        """How much memory an item takes."""
        return self.view.image_bytes

    def __getitem__(self, index: int) -> Item:
        return read_image(self.folder / self.names[index], self.view.size, self.view.photos)


def read_pair(generated: Path, photo: Path, view: View) -> tuple[list[Tensor | None], list[Problem]]:
    """A generated image and its target as `view` shows them, (3,H,W) each.

    For a wrong file None and a problem, for a broken strip no images and a problem.
    """
    height, width = view.size
    if view.strips and _has_size(generated, (height, STRIP * width)):
        strip, problems = read_image(generated, (height, STRIP * width))
        if problems:
            return [], problems
        _, _, target, _, fake = strip.chunk(STRIP, dim=-1)
        return [fake, target], []
    fake, problems = read_image(generated, view.size, view.generated)
    real, more = read_image(photo, view.size, view.photos)
    return [fake, real], problems + more


def _has_size(path: Path, size: tuple[int, int]) -> bool:
    try:
        return photo_size(path) == size
    except UserError:  # `read_image` reports it
        return False


def read_image(path: Path, size: tuple[int, int], resize: str | None = None) -> Item:
    """(3,H,W) of a photo that can be decoded and has `size` (H, W), else None and a problem.

    resize: a key of RESIZE, the filter that brings photos of another size to `size`; None: another size is a problem.
    """
    try:
        image = decode_photo(path)
    except UserError as error:
        return None, [Problem("unreadable", str(error))]
    if resize:
        return RESIZE[resize](from_pil(image), size), []
    if wrong := size_problem(image, size):
        return None, [Problem("wrong size", f"{path}: {wrong}")]
    return from_pil(image), []


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
    """The average photo, uint8 (3,H,W), rounded; UserError if no photo is usable. Unusable ones go to `problems`."""
    total, n = torch.zeros(3, *photos.view.size, dtype=torch.int64), 0
    for batch in load_batches(photos, batch_size, workers, "mean image", problems):
        total += batch.sum(0)
        n += len(batch)
    if not n:
        raise UserError("--baseline mean_image: no photo of --fid_real_path can be used")
    return (total / n).round().byte()
