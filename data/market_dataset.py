"""Market-1501: 128 x 64 photos, which the network gets at that size."""

from argparse import ArgumentParser

from data.pose_pair_dataset import PosePairDataset


class MarketDataset(PosePairDataset):
    default_name = "DPTN_market"
    default_root = "./dataset/market"
    pairs_csv = "market-pairs-{phase}.csv"
    keypoints_csv = "market-annotation-{phase}.csv"
    stored_size = (128, 64)
    network_size = (128, 64)
    published = {"train": (12_936, 263_632), "test": (19_732, 12_000)}
    camera_pattern = r"_c(\d+)"
    distractors = ("-1", "0000")  # "junk" and "distractor" detections, as the authors call them

    @classmethod
    def modify_commandline_options(cls, parser: ArgumentParser, is_train: bool) -> None:
        super().modify_commandline_options(parser, is_train)
        if is_train:
            parser.set_defaults(save_by_iter=True)  # as published, for this data set only
