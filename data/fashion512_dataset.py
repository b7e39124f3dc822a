"""DeepFashion's in-shop clothes at 512 x 352, from the high-resolution archive, with PATN's lists and keypoints.

The network works at the stored size, without stretching. NTED and CFLD report results at 512 x 352 too.
"""

from data.fashion_dataset import FashionDataset


class Fashion512Dataset(FashionDataset):
    default_name = "DPTN_fashion512"
    default_root = "./dataset/fashion512"
    stored_size = (512, 352)
    network_size = (512, 352)
    keypoints_size = FashionDataset.stored_size  # PATN's rows are scaled, so that one file serves both sizes
