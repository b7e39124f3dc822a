"""What test.py makes: how long it takes beside the network alone, and what bf16 and compilation change in it."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from data.loaders import PairLoader, create_test_dataset, create_test_loader
from data.pairs import result_names
from data.synthetic.people import render_people
from inference.pose_transfer import PoseTransfer
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS
from metrics.stream import read_image
from models import create_model
from options.test_options import TestOptions
from scripts.benchmark.measure import median_seconds, seconds, speed_flags
from scripts.benchmark.networks import MODES, one_call
from util.device import select_device
from util.errors import UserError
from util.results import Results, describe_run
from util.worker_processes import available_cores

PEOPLE, PHOTOS = 4, 24  # rendered identities and photos of each: some 2,000 pairs
SECONDS = 20.0  # how long the network has to work, so that the time to start the loader does not matter
TIME_COLUMNS = {"test.py": "", "batch": "", "precision": "", "compile": "", "s/image": ".4f", "network alone": ".4f",
                "ratio": ".2f", "pairs": "", "files": ""}  # fmt: skip
PLAIN = ("fp32", False)  # the variant that all others are compared with
METRICS = ["psnr", "ssim_256", "l1"]
PRECISION_COLUMNS = {"precision": "", "compile": "", "mean difference": ".4f", "largest": "", "PSNR": ".4f",
                     "SSIM (ssim_256)": ".6f", "L1": ".6f", "pairs": ""}  # fmt: skip


def measure_time(sizes: list[str], flags: list[str], variants: list[tuple[str, bool]], repeats: int) -> Iterator[tuple]:
    """Rows of a table, one for each size and variant (precision, whether to compile). `flags`: of test.py."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            render_people(Path(folder, "photos"), MODES[size], (0, PEOPLE), PHOTOS, seed=0, workers=available_cores())
            common = ["--name=benchmark", f"--dataset_mode={MODES[size]}", f"--dataroot={folder}/photos", *flags]
            for precision, compiling in variants:
                with tempfile.TemporaryDirectory(dir=folder) as run:
                    folders = [f"--checkpoints_dir={run}", f"--results_dir={run}/results"]
                    opt = TestOptions().parse([*common, *folders, *speed_flags(precision, compiling)])
                    device = select_device(opt.gpu_ids)
                    create_model(opt, device, is_train=False).save_networks(opt.which_epoch)  # random weights
                    per_image, alone, pairs = time_both(PoseTransfer(opt, device), repeats)
                    files = sum(path.is_file() for path in Path(run, "results").rglob("*"))
                compiled = "yes" if compiling else "no"
                yield size, opt.batchSize, precision, compiled, per_image, alone, per_image / alone, pairs, files


def time_both(transfer: PoseTransfer, repeats: int) -> tuple[float, float, int]:
    """Seconds for each image of test.py's loop and of the network in it, and the number of images of the loop.

    The network is timed before and after the loop, because the speed of a shared machine varies.
    """
    dataset, size, device = create_test_dataset(transfer.opt), transfer.opt.batchSize, transfer.device
    if len(dataset) < size:
        raise UserError(f"{len(dataset)} pairs do not fill one batch of --batch {size}")
    full_batches = dataset.subset(dataset.pairs[: len(dataset) // size * size])
    loader = create_test_loader(transfer.opt, full_batches, device)
    for batch in islice(loader, 2):  # compiles; as in test.py the loader's processes start before the network works
        transfer.generate(batch)
    network_alone = one_call(transfer.model, batch)
    before = median_seconds(network_alone, repeats, device)
    batches = min(len(loader), max(1, round(SECONDS / before)))
    loader.set_position(1, len(loader) - batches)
    whole = seconds(lambda: write_results(transfer, loader), device)
    after = median_seconds(network_alone, repeats, device)
    return whole / (batches * size), (before + after) / 2 / size, batches * size


def write_results(transfer: PoseTransfer, loader: PairLoader) -> None:
    """What test.py does after loading weights and starting the loader's processes.

    The page covers the whole data set, also if the loader starts in the middle of it.
    """
    opt, dataset = transfer.opt, loader.dataset
    names = result_names(dataset.pairs, opt.image_format)
    run = describe_run(opt, transfer.weights_file, dataset.photo_dir, dataset.fingerprint()["csv_sha256"])
    with Results(Path(opt.results_dir), names, run, resume=opt.continue_test) as results:
        for batch, images in transfer.generate_all(loader):
            results.add(batch, images)
    results.write_page(opt.name)


def measure_precision(flags: list[str], variants: list[tuple[str, bool]]) -> Iterator[tuple]:
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
        for fake, name in zip(images[-1], batch["target_name"]):
            real, _ = read_image(dataset.photo_dir / name, dataset.stored_size)
            scores.append(score_pixels(fake, real, None, METRICS, PROTOCOLS["standard"], transfer.opt.dataset_mode))
    return torch.cat(images), pd.DataFrame(scores)[METRICS].mean()


def difference(images: Tensor, others: Tensor) -> tuple[float, int]:
    """Mean and largest difference of uint8 images in levels."""
    levels = (images.short() - others.short()).abs()
    return levels.double().mean().item(), levels.max().item()
