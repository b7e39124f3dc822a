"""Finds a data set by name."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data.pose_pair_dataset import PosePairDataset


def dataset_names() -> list[str]:
    """The choices of --dataset_mode: NAME for every data/NAME_dataset.py with a class NAMEDataset."""
    names = (path.name.removesuffix("_dataset.py") for path in Path(__file__).parent.glob("*_dataset.py"))
    return sorted(name for name in names if name != "pose_pair")


def find_dataset(name: str) -> "type[PosePairDataset]":
    return getattr(import_module(f"data.{name}_dataset"), f"{name.title().replace('_', '')}Dataset")
