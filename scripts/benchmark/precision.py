"""What bf16 and compilation change in the images of a trained network."""

from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor

from data.loaders import create_test_dataset, create_test_loader
from inference.pose_transfer import PoseTransfer
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS
from metrics.stream import read_images
from options.test_options import TestOptions
from scripts.benchmark.measure import speed_flags
from util.device import select_device

PLAIN = ("fp32", False)  # the variant that all others are compared with
METRICS = ["psnr", "ssim_256", "l1"]
COLUMNS = {"precision": "", "compile": "", "mean difference": ".4f", "largest": "", "PSNR": ".4f",
           "SSIM (ssim_256)": ".6f", "L1": ".6f", "pairs": ""}  # fmt: skip


def measure(flags: list[str], variants: list[tuple[str, bool]]) -> Iterator[tuple]:
    """Rows of a table: PLAIN, then each other of `variants` (precision, whether to compile); `flags`: of test.py.

    Images are compared before any JPEG compression. PLAIN's images all stay in memory as uint8.
    """
    plain = None
    for precision, compiling in dict.fromkeys([PLAIN, *variants]):
        opt = TestOptions().parse([*flags, *speed_flags(precision, compiling)])
        images, scores = generate_and_score(PoseTransfer(opt, select_device(opt.gpu_ids)))
        plain = images if plain is None else plain
        yield precision, "yes" if compiling else "no", *difference(images, plain), *scores, len(images)


def generate_and_score(transfer: PoseTransfer) -> tuple[Tensor, pd.Series]:
    """All test pairs: uint8 (N,3,H,W) at the stored size, and mean METRICS against the target photos (`standard`)."""
    dataset = create_test_dataset(transfer.opt)
    images, scores = [], []
    for batch in create_test_loader(transfer.opt, dataset, transfer.device):
        images.append(transfer.generate(batch))
        reals, _ = read_images([dataset.photo_dir / name for name in batch["target_name"]], dataset.stored_size)
        for fake, real in zip(images[-1], reals):
            scores.append(score_pixels(fake, real, None, METRICS, PROTOCOLS["standard"], transfer.opt.dataset_mode))
    return torch.cat(images), pd.DataFrame(scores)[METRICS].mean()


def difference(images: Tensor, others: Tensor) -> tuple[float, int]:
    """Mean and largest difference of uint8 images in levels."""
    levels = (images.short() - others.short()).abs()
    return levels.double().mean().item(), levels.max().item()
