"""Pairs of photos of one person in two poses: the logic shared by all data sets in PATN's layout.

dataroot/{train,test}/*.jpg    dataroot/{pairs csv}    dataroot/{keypoints csv}

A data set is a subclass that sets constants: see fashion_dataset.py and market_dataset.py.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.keypoints import scale_keypoints
from data.pairs import Pair, check_pairs, read_keypoints, read_pairs
from util import distributed
from util.errors import UserError
from util.files import sha256
from util.image import decode_photo, size_problem, stretch
from util.worker_processes import available_shared_memory


class ImageCache:
    """Decoded images in memory that the loader's workers share; each is decoded when it is first needed."""

    def __init__(self, num_images: int, size: tuple[int, int]) -> None:
        """Allocate `num_images` images of `size` (H, W) and print the memory used. UserError if there is not enough."""
        need, free = num_images * 3 * size[0] * size[1] * distributed.local_processes(), available_shared_memory()
        amount = f"{num_images:,} photos need {need / 1e9:.2f} GB of shared memory"
        advice = "leave it out, or give --no-cache_images"
        # maximum() waits for all processes: each checks before any of them allocates
        too_little = free is not None and need > free
        if distributed.maximum(too_little):
            if too_little:
                raise UserError(f"--cache_images: {amount}, {free / 1e9:.2f} GB are free; {advice}")
            raise SystemExit(2)  # another process has too little, and says so
        if distributed.is_main():
            of_free = "" if free is None else f" of {free / 1e9:.2f} GB free"
            print(f"--cache_images: {amount}{of_free}", flush=True)
        try:
            self._images = torch.empty((num_images, 3, *size), dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            raise UserError(f"--cache_images: {amount}, allocation failed ({error}); {advice}") from error
        self._filled = torch.zeros(num_images, dtype=torch.bool).share_memory_()

    def get(self, index: int, name: str, load: Callable[[str], Tensor]) -> Tensor:
        """Image number `index`, uint8 (3,H,W); the first time it is made by `load(name)`."""
        if not self._filled[index]:  # no lock is needed: two workers that load one photo write the same bytes
            self._images[index] = load(name)
            self._filled[index] = True
        return self._images[index]


class PosePairDataset(Dataset):
    """One sample for each row of the pairs csv: a dict of

    source_image, target_image: uint8 (3,H,W) at the network resolution,
    source_keypoints, target_keypoints: float32 (18,2) of (y, x) in whole pixels of that resolution, NaN = missing,
    source_name, target_name: the names in the csv.
    """

    default_name: ClassVar[str]
    default_root: ClassVar[str]
    pairs_csv: ClassVar[str]  # with '{phase}' for train or test
    keypoints_csv: ClassVar[str]
    stored_size: ClassVar[tuple[int, int]]  # (H, W) of the photos on disk; results are written at this size
    network_size: ClassVar[tuple[int, int]]  # (H, W) of the network's input and output
    keypoints_size: ClassVar[tuple[int, int] | None] = None  # (H, W) of the csv's pixels; None: stored_size
    published: ClassVar[dict[str, tuple[int, int]]] = {}  # phase -> numbers of photos and pairs in the published set
    distractors: ClassVar[tuple[str, ...]] = ()  # identities that do not stand for one person
    camera_pattern: ClassVar[str | None] = None  # of a photo's name; its group is the number of the camera

    @classmethod
    def modify_commandline_options(cls, parser: ArgumentParser, is_train: bool) -> None:
        """Set this data set's defaults. A subclass that needs flags of its own adds them here."""
        parser.set_defaults(name=cls.default_name, dataroot=cls.default_root)

    @staticmethod
    def identity(name: str) -> str:
        """The person in a photo, from the photo's name: the text before the first underscore."""
        return name.split("_", 1)[0]

    @classmethod
    def outfit(cls, name: str) -> str:
        """The person in certain clothes. Photos of one outfit make pairs; no outfit is both in train and in test."""
        return cls.identity(name)

    @classmethod
    def csv_size(cls) -> tuple[int, int]:
        """(H, W) of the photos in whose pixels the keypoints csv is written."""
        return cls.keypoints_size or cls.stored_size

    @classmethod
    def csv_scale(cls) -> np.ndarray:
        """(2,) float32 for y and x: pixels of the stored size per pixel of the keypoints csv."""
        return np.divide(cls.stored_size, cls.csv_size()).astype(np.float32)

    def __init__(self, opt: Namespace, phase: str) -> None:
        """Read and check all but the photos' content. `phase`: 'train' or 'test'. UserError for the first bad file."""
        root = Path(opt.dataroot)
        if not root.is_dir():
            raise UserError(f"--dataroot {root}: no such folder")
        self.photo_dir = root / phase
        pairs_csv, keypoints_csv = (root / name.format(phase=phase) for name in (self.pairs_csv, self.keypoints_csv))
        self.csv_files = (pairs_csv, keypoints_csv)
        self.pairs = read_pairs(pairs_csv)[: opt.max_dataset_size]
        keypoints = read_keypoints(keypoints_csv)
        check_pairs(self.pairs, keypoints, self.photo_dir, pairs_csv, keypoints_csv)
        names = sorted({name for pair in self.pairs for name in pair})
        self._index = {name: index for index, name in enumerate(names)}
        stacked = torch.from_numpy(np.stack([keypoints[name] for name in names]))
        self._keypoints = scale_keypoints(stacked, self.csv_size(), self.network_size)  # (photos,18,2)
        self._cache = ImageCache(len(names), self.network_size) if opt.cache_images else None

    def subset(self, pairs: list[Pair]) -> "PosePairDataset":
        """This data set with other pairs of the same photos."""
        other = copy(self)
        other.pairs = pairs
        return other

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for role, name in zip(("source", "target"), self.pairs[index]):
            number = self._index[name]
            sample[f"{role}_image"] = self._cache.get(number, name, self._load) if self._cache else self._load(name)
            sample[f"{role}_keypoints"] = self._keypoints[number]
            sample[f"{role}_name"] = name
        return sample

    def fingerprint(self) -> dict[str, Any]:
        """Identifies the data in a run's records: the SHA-256 of the csv files, and the numbers of pairs and photos."""
        hashes = {path.name: sha256(path) for path in self.csv_files}
        return {"csv_sha256": hashes, "pairs": len(self.pairs), "photos": len(self._index)}

    def _load(self, name: str) -> Tensor:
        """A photo as uint8 (3,H,W), stretched to the network resolution if the stored size differs."""
        path = self.photo_dir / name
        image = decode_photo(path)
        if wrong := size_problem(image, self.stored_size):
            raise UserError(f"{path}: {wrong}; its keypoints would not fit")
        return stretch(image, self.network_size)
