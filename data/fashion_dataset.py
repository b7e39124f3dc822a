"""DeepFashion's in-shop clothes: 256 x 176 photos, stretched to 256 x 256 for the network.

The names of the csv files are misspelled as in PATN's repository.
"""

import re

from data.pose_pair_dataset import PosePairDataset


class FashionDataset(PosePairDataset):
    default_name = "DPTN_fashion"
    default_root = "./dataset/fashion"
    pairs_csv = "fasion-resize-pairs-{phase}.csv"
    keypoints_csv = "fasion-resize-annotation-{phase}.csv"
    stored_size = (256, 176)
    network_size = (256, 256)
    camera_pattern = r"_(\d+)"  # the view: 1front, 2side, 3back, 4full, 7additional
    published = {"train": (48_674, 101_966), "test": (4_038, 8_570)}

    @staticmethod
    def identity(name: str) -> str:
        """'fashionWOMENDressesid0000783805_7additional.jpg' -> '...id00007838', without the outfit's two digits.

        Of any other name, the text before the first underscore.
        """
        return re.match(r".*id\d{8}|[^_]*", name).group()

    @staticmethod
    def outfit(name: str) -> str:
        """'fashionWOMENDressesid0000783805_7additional.jpg' -> '...id0000783805'."""
        return re.match(r".*id\d{10}|.*id\d{8}|[^_]*", name).group()
