"""The options that data sets and loaders read, for tests."""

from argparse import Namespace
from pathlib import Path


def loader_options(root: Path, **changes: object) -> Namespace:
    values = {
        "dataset_mode": "market", "dataroot": str(root), "max_dataset_size": None, "batchSize": 2, "nThreads": 0,
        "seed": 0, "val_pairs": 0, "accumulate": 1, "cache_images": False, "serial_batches": False,
    }  # fmt: skip
    return Namespace(**{**values, **changes})
