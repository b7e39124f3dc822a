"""Pairs of photos of one person in two poses: one class for every data set in PATN's layout.

dataroot/{train,test}/*.jpg    dataroot/{pairs csv}    dataroot/{keypoints csv}
"""

import hashlib
from argparse import ArgumentParser, Namespace
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.keypoints import scale_keypoints
from data.pairs import Pair, check_pairs, read_keypoints, read_pairs
from util.errors import UserError


class PosePairDataset(Dataset):
    """csv row -> dict of one sample. Subclasses give constants only.

    A sample: `source_image`, `target_image` uint8 (3,H,W) at network resolution; `source_keypoints`,
    `target_keypoints` float32 (18,2), (y, x) in whole pixels of the network resolution, NaN = missing;
    `source_name`, `target_name`.
    """

    default_name: ClassVar[str]
    default_root: ClassVar[str]
    pairs_csv: ClassVar[str]  # with '{phase}' for train or test
    keypoints_csv: ClassVar[str]
    stored_size: ClassVar[tuple[int, int]]  # (H, W) of the photos on disk; results are written at this size
    network_size: ClassVar[tuple[int, int]]  # (H, W) the network works at

    @classmethod
    def modify_commandline_options(cls, parser: ArgumentParser) -> None:
        """Defaults of this data set; a subclass with flags of its own adds them here."""
        parser.set_defaults(name=cls.default_name, dataroot=cls.default_root)

    @staticmethod
    def identity(name: str) -> str:
        """Which person a photo shows, by its name: what comes before the first underscore."""
        return name.split("_", 1)[0]

    def __init__(self, opt: Namespace, phase: str) -> None:
        """Read and check everything but the photos themselves. Raises UserError listing all that is wrong."""
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
        self._row = {name: row for row, name in enumerate(names)}
        stacked = torch.from_numpy(np.stack([keypoints[name] for name in names]))
        self._keypoints = scale_keypoints(stacked, self.stored_size, self.network_size)  # (photos,18,2)

    def restricted_to(self, pairs: list[Pair]) -> "PosePairDataset":
        """The same data set with other pairs of the same photos."""
        other = copy(self)
        other.pairs = pairs
        return other

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for role, name in zip(("source", "target"), self.pairs[index]):
            sample[f"{role}_image"] = self._load_photo(name)
            sample[f"{role}_keypoints"] = self._keypoints[self._row[name]]
            sample[f"{role}_name"] = name
        return sample

    def write_pairs(self, path: Path) -> None:
        """The pairs as a csv that `read_pairs` reads."""
        lines = ["from,to", *(f"{pair.source},{pair.target}" for pair in self.pairs)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data: SHA-256 of the csv files, and counts."""
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.csv_files}
        return {"csv_sha256": hashes, "pairs": len(self.pairs), "photos": len(self._row)}

    def _load_photo(self, name: str) -> Tensor:
        """uint8 (3,H,W), stretched to the network resolution (PIL bilinear) where the stored size differs."""
        path = self.photo_dir / name
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{path}: photo cannot be decoded ({error})") from error
        if (image.height, image.width) != self.stored_size:
            raise UserError(
                f"{path}: {image.width} x {image.height} pixels, expected {self.stored_size[1]} x "
                f"{self.stored_size[0]} (width x height); its keypoints would not fit"
            )
        if self.network_size != self.stored_size:
            image = image.resize(self.network_size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
