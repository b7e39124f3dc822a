"""The data part of scripts/benchmark.py: samples a second on one core, their size, and the time to start."""

import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from data import find_dataset
from data.pairs import identity_pairs, write_keypoints, write_pairs
from data.pose_pair_dataset import PosePairDataset
from data.synthetic.people import render_people

PEOPLE = (24, 2)  # drawn identities, 8 photos each


def report(roots: dict[str, str], repeats: int) -> None:
    """Print a table. `roots`: data root by data set; for one that is not there people are drawn."""
    print(
        "| data set | photos | ms/sample | samples/s | kB/sample | cached ms/sample | pairs in the lists | start-up s |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for mode in ("fashion", "market"):
        with tempfile.TemporaryDirectory() as folder:
            root = roots.get(mode)
            if root is None:
                render_people(Path(folder), mode, PEOPLE, photos=8, seed=0, workers=2)
            dataset, start_up = open_timed(mode, root or folder, cache=False)
            pairs = len(dataset)
            if root is None:
                start_up, pairs = published_start_up(mode)
            plain = sample_milliseconds(dataset, repeats)
            cached = sample_milliseconds(open_timed(mode, root or folder, cache=True)[0], repeats)
            size = sum(value.nbytes for value in dataset[0].values() if isinstance(value, torch.Tensor)) / 1e3
            print(
                f"| {mode} | {root or 'drawn'} | {plain:.2f} | {1e3 / plain:.0f} | {size:.1f} | {cached:.3f} "
                f"| {pairs:,} | {start_up:.2f} |",
                flush=True,
            )


def open_timed(mode: str, root: str, cache: bool) -> tuple[PosePairDataset, float]:
    opt = Namespace(dataroot=root, max_dataset_size=None, cache_images=cache)
    start = time.perf_counter()
    dataset = find_dataset(mode)(opt, "train")
    return dataset, time.perf_counter() - start


def sample_milliseconds(dataset: PosePairDataset, repeats: int) -> float:
    """Median over passes of the processor time of a sample, in one process with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    order = np.random.RandomState(0).permutation(len(dataset))[:300]
    times = []
    for index in order:
        dataset[index]  # the files come from the cache of the disk, as they do after the first epoch
    for _ in range(repeats):
        start = time.process_time()
        for index in order:
            dataset[index]
        times.append((time.process_time() - start) / len(order) * 1e3)
    torch.set_num_threads(threads)
    return sorted(times)[len(times) // 2]


def published_start_up(mode: str) -> tuple[float, int]:
    """Seconds to read and check lists as long as the published training set's, and their number of pairs."""
    dataset = find_dataset(mode)
    photos, pairs = dataset.published["train"]
    together = round(pairs / photos) + 1  # photos of one identity, which make together - 1 pairs each
    random = np.random.RandomState(0)
    names = [f"{number // together:05d}_c1s1_{number:06d}_00.jpg" for number in range(photos)]
    keypoints = {name: random.randint(0, dataset.stored_size[1], (18, 2)).astype(float) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_keypoints(root / dataset.keypoints_csv.format(phase="train"), keypoints)
        listed = identity_pairs(keypoints, dataset.identity)[:pairs]
        write_pairs(root / dataset.pairs_csv.format(phase="train"), listed)
        (root / "train").mkdir()
        for name in names:
            (root / "train" / name).touch()
        del keypoints
        return open_timed(mode, folder, cache=False)[1], len(listed)
