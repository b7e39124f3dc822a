"""Loaders for training, validation and testing: batches of pairs in an order that depends on seed and epoch only."""

import math
import weakref
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Sampler

from data import find_dataset
from data.pairs import hold_out
from data.pose_pair_dataset import PosePairDataset
from util import distributed
from util.errors import UserError
from util.loader import BatchLoader


@dataclass
class EpochBatchSampler(Sampler[list[int]]):
    """The batches of one epoch as lists of indices, of which each of `processes` processes gets an equal share.

    Their order depends only on seed and epoch, so a resumed run continues at the batch where it stopped.
    """

    length: int
    batch_size: int  # in all processes together
    shuffle: bool
    seed: int
    drop_last: bool  # leave out an incomplete last batch, as the published training does
    rank: int = 0
    processes: int = 1
    epoch: int = 1  # `epoch` and `start` may be set before each pass
    start: int = 0  # number of batches to skip

    def __len__(self) -> int:
        """The number of batches in a whole epoch."""
        return self.length // self.batch_size if self.drop_last else math.ceil(self.length / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator) if self.shuffle else torch.arange(self.length)
        for batch in range(self.start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield indices[self.rank :: self.processes].tolist()


class PairLoader:
    """Batches of a data set: dicts of tensors and of lists of names. One pass yields one epoch: the first, or that of
    `set_position`."""

    def __init__(
        self, dataset: PosePairDataset, sampler: EpochBatchSampler, workers: int, device: torch.device
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        height, width = dataset.network_size
        batch_bytes = math.ceil(sampler.batch_size / sampler.processes) * 2 * 3 * height * width  # two uint8 RGB images
        self.batches = BatchLoader(
            dataset, batch_bytes, workers, batch_sampler=sampler, persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(sampler.seed),  # instead of the global random state
        )  # fmt: skip
        # The workers ignore signals, so they must be told to end, even if an error ends the program.
        weakref.finalize(self, self.batches.end_workers)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_position(self, epoch: int, batches_done: int = 0) -> None:
        """Let the next pass be `epoch` (from 1) without its first `batches_done` batches, which are not decoded."""
        self.sampler.epoch, self.sampler.start = epoch, batches_done

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.batches


def create_test_dataset(opt: Namespace) -> PosePairDataset:
    """The pairs of the test set, with --max_dataset_size N the first N, in the order of the csv."""
    return find_dataset(opt.dataset_mode)(opt, "test")


def create_test_loader(opt: Namespace, dataset: PosePairDataset, device: torch.device) -> PairLoader:
    """All pairs of `dataset` in their order."""
    sampler = EpochBatchSampler(len(dataset), opt.batchSize, shuffle=False, seed=opt.seed, drop_last=False)
    return PairLoader(dataset, sampler, opt.nThreads, device)


def create_train_loaders(opt: Namespace, device: torch.device) -> tuple[PairLoader, PairLoader | None]:
    """The loaders of the training pairs and, with --val_pairs, of the held-out identities' pairs (else None).

    Training pairs are shuffled unless --serial_batches is set; each process gets its share of every batch of
    --batchSize. The validation loader has all held-out pairs, in batches of a micro-batch's size, for process 0 alone.
    """
    num_micro_batches = distributed.processes() * opt.accumulate  # of one batch, over all processes
    if opt.batchSize % num_micro_batches:
        raise UserError(
            f"--batchSize {opt.batchSize}, the total over all processes, must be a multiple of {num_micro_batches} "
            f"(number of processes: {distributed.processes()}, --accumulate {opt.accumulate})"
        )
    dataset = find_dataset(opt.dataset_mode)(opt, "train")
    val_loader = None
    if opt.val_pairs:
        kept, held_out = hold_out(dataset.pairs, dataset.identity, opt.val_pairs, opt.seed)
        micro_batch_size = opt.batchSize // num_micro_batches
        sampler = EpochBatchSampler(len(held_out), micro_batch_size, shuffle=False, seed=opt.seed, drop_last=False)
        val_loader = PairLoader(dataset.subset(held_out), sampler, workers=0, device=device)
        dataset = dataset.subset(kept)
    if len(dataset) < opt.batchSize:
        raise UserError(
            f"{opt.dataroot}: {len(dataset)} training pairs do not fill one batch of --batchSize {opt.batchSize}"
        )
    sampler = EpochBatchSampler(
        len(dataset), opt.batchSize, shuffle=not opt.serial_batches, seed=opt.seed, drop_last=True,
        rank=distributed.rank(), processes=distributed.processes(),
    )  # fmt: skip
    return PairLoader(dataset, sampler, opt.nThreads, device), val_loader


def fingerprints(train_loader: PairLoader, val_loader: PairLoader | None) -> dict[str, Any]:
    """What identifies the data of a training run; it must not change when the run is resumed."""
    held_out = None if val_loader is None else val_loader.dataset.fingerprint()
    return {"train": train_loader.dataset.fingerprint(), "validation": held_out}
