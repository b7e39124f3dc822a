"""What bf16 and compilation change in the images of a trained network."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from data.loaders import create_test_dataset, create_test_loader
from inference.pose_transfer import PoseTransfer
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS
from metrics.stream import read_images
from options.test_options import TestOptions
from scripts.benchmark.measure import print_table, speed_flags, yes_no
from util.device import select_device

PLAIN = ("fp32", False)  # the variant that all others are compared with
COLUMNS = {"precision": "", "compile": "", "mean difference": ".4f", "largest": "", "PSNR": ".4f",
           "SSIM (ssim_256)": ".6f", "L1": ".6f", "pairs": ""}  # fmt: skip


def report(flags: Sequence[str], variants: Sequence[tuple[str, bool]]) -> None:
    """Print a table with a row for PLAIN and for each of `variants` (precision, whether to compile).

    `flags` are flags of test.py.
    """
    print_table(measure(flags, [PLAIN, *(variant for variant in variants if variant != PLAIN)]), COLUMNS)


def measure(flags: Sequence[str], variants: Sequence[tuple[str, bool]]) -> Iterator[tuple]:
    """The rows of `report`'s table.

    Images are compared before any JPEG compression. The images of the first variant all stay in memory as uint8.
    """
    plain = None
    for precision, compiling in variants:
        opt = TestOptions().parse([*flags, *speed_flags(precision, compiling)])
        images, scores = generate_and_score(PoseTransfer(opt, select_device(opt.gpu_ids)))
        plain = images if plain is None else plain
        values = (scores[name] for name in ("psnr", "ssim_256", "l1"))
        yield precision, yes_no(compiling), *difference(images, plain), *values, len(images)


def generate_and_score(transfer: PoseTransfer) -> tuple[Tensor, dict[str, float]]:
    """All test pairs: uint8 (N,3,H,W) at the stored size, and metrics against the target photos (`standard`)."""
    dataset = create_test_dataset(transfer.opt)
    settings = (None, ["psnr", "ssim_256", "l1"], PROTOCOLS["standard"], transfer.opt.dataset_mode)
    images, scores = [], []
    for batch in create_test_loader(transfer.opt, dataset, transfer.device):
        images.append(transfer.generate(batch))
        reals, _ = read_images([dataset.photo_dir / name for name in batch["target_name"]], dataset.stored_size)
        scores += [score_pixels(fake, real, *settings) for fake, real in zip(images[-1], reals)]
    return torch.cat(images), pd.DataFrame(scores).mean().to_dict()


def difference(images: Tensor, others: Tensor) -> tuple[float, int]:
    """Mean and largest difference of uint8 images in levels."""
    levels = (images.short() - others.short()).abs()
    return levels.double().mean().item(), levels.max().item()
