"""The data sets, found by their name."""

from pathlib import Path
from typing import TYPE_CHECKING

from util.packages import find_class

if TYPE_CHECKING:
    from data.pose_pair_dataset import PosePairDataset


def dataset_names() -> list[str]:
    """The choices of --dataset_mode: 'fashion' for data/fashion_dataset.py with the class FashionDataset, and so on."""
    names = (path.name.removesuffix("_dataset.py") for path in Path(__file__).parent.glob("*_dataset.py"))
    return sorted(name for name in names if name != "pose_pair")


def find_dataset(name: str) -> "type[PosePairDataset]":
    """The class of one of `dataset_names()`. UserError where its file has no class of that name."""
    return find_class(f"data.{name}_dataset", f"{name.title().replace('_', '')}Dataset")
