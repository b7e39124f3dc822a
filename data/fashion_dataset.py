"""DeepFashion in-shop clothes, 256 x 176 photos stretched to 256 x 256 (csv names misspelt as in PATN)."""

from data.pose_pair_dataset import PosePairDataset


class FashionDataset(PosePairDataset):
    default_name = "DPTN_fashion"
    default_root = "./dataset/fashion"
    pairs_csv = "fasion-resize-pairs-{phase}.csv"
    keypoints_csv = "fasion-resize-annotation-{phase}.csv"
    stored_size = (256, 176)
    network_size = (256, 256)
