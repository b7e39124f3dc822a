"""Time to load a sample on one core, its size, and the time to read the lists at start-up."""

import math
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from data import find_dataset
from data.pairs import identity_pairs, write_keypoints, write_pairs
from data.pose_pair_dataset import PosePairDataset
from data.synthetic.people import render_people

IDENTITIES, PHOTOS = (24, 2), 8  # rendered people to train and to test on, and photos of each
SAMPLES = 300  # at most so many are loaded in each timed pass
COLUMNS = {"data set": "", "photos": "", "ms/sample": ".2f", "samples/s": ".0f", "kB/sample": ".1f",
           "cached ms/sample": ".3f", "pairs in the lists": ",", "start-up s": ".2f"}  # fmt: skip


def measure(roots: dict[str, str | None], repeats: int) -> Iterator[tuple]:
    """Rows of a table. `roots`: the data root of each data set; people are rendered where it is None."""
    for mode, root in roots.items():
        with tempfile.TemporaryDirectory() as folder:
            if root is None:
                render_people(Path(folder), mode, IDENTITIES, PHOTOS, seed=0, workers=2)
            dataset, start_up = open_timed(mode, root or folder, cache=False)
            start_up, pairs = (start_up, len(dataset)) if root else published_start_up(mode)
            plain = sample_milliseconds(dataset, repeats)
            cached = sample_milliseconds(open_timed(mode, root or folder, cache=True)[0], repeats)
            size = sum(value.nbytes for value in dataset[0].values() if isinstance(value, torch.Tensor)) / 1e3
        yield mode, root or "rendered", plain, 1e3 / plain, size, cached, pairs, start_up


def open_timed(mode: str, root: str, cache: bool) -> tuple[PosePairDataset, float]:
    """The training split of a data set, and the seconds to open it."""
    start = time.perf_counter()
    dataset = find_dataset(mode)(Namespace(dataroot=root, max_dataset_size=None, cache_images=cache), "train")
    return dataset, time.perf_counter() - start


def sample_milliseconds(dataset: PosePairDataset, repeats: int) -> float:
    """Processor time of a sample in one process with one thread, the median of `repeats` passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    order = np.random.RandomState(0).permutation(len(dataset))[:SAMPLES]
    times = []
    for _ in range(repeats + 1):  # the first pass brings the files into the system's cache and is not counted
        start = time.process_time()
        for index in order:
            dataset[index]
        times.append((time.process_time() - start) / len(order) * 1e3)
    torch.set_num_threads(threads)
    return median(times[1:])


def published_start_up(mode: str) -> tuple[float, int]:
    """Seconds to read and check lists as long as the published training set's, and their number of pairs."""
    dataset = find_dataset(mode)
    photos, pairs = dataset.published["train"]
    per_identity = math.ceil(pairs / photos) + 1  # each photo has a pair with every other one of its identity
    names = [f"{number // per_identity:05d}_c1s1_{number:06d}_00.jpg" for number in range(photos)]
    joints = np.random.RandomState(0).randint(0, dataset.stored_size[1], (photos, 18, 2)).astype(float)
    keypoints = dict(zip(names, joints))
    listed = identity_pairs(keypoints, dataset.identity)[:pairs]
    with tempfile.TemporaryDirectory() as folder:
        write_keypoints(Path(folder, dataset.keypoints_csv.format(phase="train")), keypoints)
        write_pairs(Path(folder, dataset.pairs_csv.format(phase="train")), listed)
        Path(folder, "train").mkdir()
        for name in names:
            Path(folder, "train", name).touch()
        return open_timed(mode, folder, cache=False)[1], len(listed)
