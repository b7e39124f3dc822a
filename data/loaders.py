"""Loaders: batches of pairs in an order that seed and epoch fix, for training, validation and testing."""

import weakref
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from data import find_dataset
from data.pairs import hold_out
from data.pose_pair_dataset import PosePairDataset
from util import distributed
from util.errors import UserError
from util.parallel import ignore_signals_in_worker


class EpochBatchSampler(Sampler[list[int]]):
    """Index lists of one epoch. The order depends on seed and epoch alone, so any batch can be found again.

    `epoch` and `start` (batches to leave out at the front) may be set before each pass. With `drop_last` the samples
    that do not fill a batch are left out, as the published training does. Process `rank` of `processes` gets its
    equal share of every batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.length, self.batch_size, self.shuffle, self.seed = length, batch_size, shuffle, seed
        self.drop_last, self.rank, self.processes = drop_last, rank, processes
        self.epoch, self.start = 1, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
        else:
            order = list(range(self.length))
        for batch in range(self.start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield indices[self.rank :: self.processes]


class PairLoader:
    """A data set and its batches: dicts of tensors and name lists. Iterating gives the epoch set by `set_position`."""

    def __init__(
        self, dataset: PosePairDataset, sampler: EpochBatchSampler, workers: int, device: torch.device
    ) -> None:
        self.dataset, self.sampler = dataset, sampler
        self.loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(sampler.seed),  # leaves the global random state alone
        )

        # the workers ignore signals, so they must be told to end, also when an error ends the program
        weakref.finalize(self, _end_workers, self.loader)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_position(self, epoch: int, batches_done: int = 0) -> None:
        """Start the next pass in `epoch` (from 1) after `batches_done` batches, which are not decoded."""
        self.sampler.epoch, self.sampler.start = epoch, batches_done

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self.loader
        except UserError as error:
            # torch wraps a worker's error in the worker's traceback; the user needs its last line
            raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from error


def _end_workers(loader: DataLoader) -> None:
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None:
        iterator._shutdown_workers()


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    ignore_signals_in_worker()


def create_test_dataset(opt: Namespace) -> PosePairDataset:
    """All pairs of the test split, in csv order."""
    return find_dataset(opt.dataset_mode)(opt, "test")


def create_test_loader(opt: Namespace, dataset: PosePairDataset, device: torch.device) -> PairLoader:
    """The pairs of `dataset` in their order, every one of them."""
    sampler = EpochBatchSampler(len(dataset), opt.batchSize, shuffle=False, seed=opt.seed, drop_last=False)
    return PairLoader(dataset, sampler, opt.nThreads, device)


def create_train_loaders(opt: Namespace, device: torch.device) -> tuple[PairLoader, PairLoader | None]:
    """Training pairs (shuffled unless --serial_batches; this process's share of full batches of --batchSize), and
    with --val_pairs those of the held-out identities, else None."""
    dataset = find_dataset(opt.dataset_mode)(opt, "train")
    parts = distributed.processes() * opt.accumulate
    if opt.batchSize % parts:
        raise UserError(
            f"--batchSize {opt.batchSize} is the total over all processes; it cannot be shared equally by "
            f"{distributed.processes()} processes x --accumulate {opt.accumulate}"
        )
    validation = None
    if opt.val_pairs:
        kept, held_out = hold_out(dataset.pairs, dataset.identity, opt.val_pairs, opt.seed)
        size = opt.batchSize // parts
        sampler = EpochBatchSampler(len(held_out), size, shuffle=False, seed=opt.seed, drop_last=False)
        validation = PairLoader(dataset.subset(held_out), sampler, 0, device)
        dataset = dataset.subset(kept)
    if len(dataset) < opt.batchSize:
        raise UserError(
            f"{opt.dataroot}: {len(dataset)} training pairs do not fill one batch of --batchSize {opt.batchSize}"
        )
    sampler = EpochBatchSampler(
        len(dataset),
        opt.batchSize,
        shuffle=not opt.serial_batches,
        seed=opt.seed,
        drop_last=True,
        rank=distributed.rank(),
        processes=distributed.processes(),
    )
    return PairLoader(dataset, sampler, opt.nThreads, device), validation


def fingerprints(train_loader: PairLoader, val_loader: PairLoader | None) -> dict[str, Any]:
    """What identifies the data of a training run; it must not change when the run is resumed."""
    return {"train": train_loader.dataset.fingerprint(), "validation": val_loader and val_loader.dataset.fingerprint()}
