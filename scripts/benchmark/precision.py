"""The precision part of scripts/benchmark.py: what bf16 and compilation change in a trained network's images."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from data.loaders import create_test_dataset, create_test_loader
from inference.pose_transfer import PoseTransfer
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS
from metrics.stream import read_images
from options.test_options import TestOptions
from util.device import select_device

PLAIN = ["--precision=fp32", "--no-compile"]  # what every other way is compared with


def report(flags: Sequence[str], variants: Sequence[Sequence[str]]) -> None:
    """Print a table. `flags`: of test.py; `variants`: more of them, a row each, after one for PLAIN.

    Images are compared as drawn, before any JPEG. All that PLAIN draws stay in memory, a byte a number.
    """
    print("| precision | compile | mean difference | largest | PSNR | SSIM (ssim_256) | L1 | pairs |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    plain = None
    for variant in [PLAIN, *(variant for variant in variants if variant != PLAIN)]:
        opt = TestOptions().parse([*flags, *variant])
        images, scores = draw_and_score(PoseTransfer(opt, select_device(opt.gpu_ids)))
        plain = images if plain is None else plain
        mean, largest = difference(images, plain)
        print(
            f"| {opt.precision} | {'yes' if opt.compile else 'no'} | {mean:.4f} | {largest} | {scores['psnr']:.4f} "
            f"| {scores['ssim_256']:.6f} | {scores['l1']:.6f} | {len(images)} |",
            flush=True,
        )


def draw_and_score(transfer: PoseTransfer) -> tuple[Tensor, dict[str, float]]:
    """All test pairs: uint8 (N,3,H,W) at the stored size, and metrics against the target photos (`standard`)."""
    dataset = create_test_dataset(transfer.opt)
    drawn, scores = [], []
    for batch in create_test_loader(transfer.opt, dataset, transfer.device):
        drawn.append(transfer.generate(batch))
        reals, _ = read_images([dataset.photo_dir / name for name in batch["target_name"]], dataset.stored_size)
        settings = (None, ["psnr", "ssim_256", "l1"], PROTOCOLS["standard"], transfer.opt.dataset_mode)
        scores += [score_pixels(fake, real, *settings) for fake, real in zip(drawn[-1], reals)]
    return torch.cat(drawn), pd.DataFrame(scores).mean().to_dict()


def difference(images: Tensor, others: Tensor) -> tuple[float, int]:
    """Mean and largest difference of uint8 images in levels."""
    levels = (images.short() - others.short()).abs()
    return levels.double().mean().item(), levels.max().item()
