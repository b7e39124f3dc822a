"""The results part of scripts/benchmark.py: test.py from the photos on disk to its page, beside the network alone."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from data.loaders import PairLoader, create_test_dataset, create_test_loader
from data.pairs import result_names
from data.synthetic.people import render_people
from inference.pose_transfer import PoseTransfer
from models import create_model
from options.test_options import TestOptions
from util.device import select_device
from util.errors import UserError
from util.results import Results, describe_run

PEOPLE, PHOTOS = 4, 24  # drawn identities and photos of each: some 2,000 pairs
SECONDS = 20.0  # pairs enough for the network to work so long, so that starting the loader does not matter


def report(
    modes: Mapping[str, str], flags: Sequence[str], variants: Sequence[Sequence[str]], repeats: int,
    median_seconds: Callable[..., float], seconds: float = SECONDS,
) -> None:  # fmt: skip
    """Print a table. `modes`: data set by its name in the table; `flags`: of test.py; `variants`: more of them, a row
    each."""
    print("| test.py | batch | precision | compile | s/image | network alone | ratio | pairs | files |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name, mode in modes.items():
        with tempfile.TemporaryDirectory() as folder:
            render_people(Path(folder, "photos"), mode, (0, PEOPLE), PHOTOS, seed=0, workers=2)
            for variant in variants:
                places = [
                    f"--dataroot={folder}/photos",
                    f"--checkpoints_dir={folder}",
                    f"--results_dir={folder}/results",
                ]
                transfer = random_transfer([f"--dataset_mode={mode}", *places, *flags, *variant])
                whole, alone, pairs = time_both(transfer, repeats, median_seconds, seconds)
                opt = transfer.opt
                files = sum(path.is_file() for path in Path(opt.results_dir).rglob("*"))
                shutil.rmtree(opt.results_dir)
                print(
                    f"| {name} | {opt.batchSize} | {opt.precision} | {'yes' if opt.compile else 'no'} | {whole:.4f} "
                    f"| {alone:.4f} | {whole / alone:.2f} | {pairs} | {files} |",
                    flush=True,
                )


def random_transfer(flags: Sequence[str]) -> PoseTransfer:
    """A network of random weights, saved and loaded as a trained one is."""
    opt = TestOptions().parse(["--name=benchmark", *flags])
    device = select_device(opt.gpu_ids)
    create_model(opt, device, is_train=False).save_networks(opt.which_epoch)
    return PoseTransfer(opt, device)


def time_both(
    transfer: PoseTransfer, repeats: int, median_seconds: Callable[..., float], seconds: float
) -> tuple[float, float, int]:
    """Seconds an image of test.py's loop and of the network in it, and how many images the loop drew.

    The network is timed before and after the loop: a machine that others use wanders.
    """
    dataset, size = create_test_dataset(transfer.opt), transfer.opt.batchSize
    if len(dataset) < size:
        raise UserError(f"{len(dataset)} pairs do not fill one batch of --batch {size}")
    whole_batches = dataset.subset(dataset.pairs[: len(dataset) // size * size])
    loader = create_test_loader(transfer.opt, whole_batches, transfer.device)
    for batch in islice(loader, 2):  # compiles; as in test.py the loader's processes start before the network works
        transfer.generate(batch)

    def alone() -> None:
        transfer.model.set_input(batch)
        transfer.model.test()

    before = median_seconds(alone, repeats, transfer.device)
    loader.set_position(1, max(0, len(loader) - max(1, round(seconds / before))))
    whole, pairs = draw_seconds(transfer, loader)
    after = median_seconds(alone, repeats, transfer.device)
    return whole / pairs, (before + after) / 2 / size, pairs


def draw_seconds(transfer: PoseTransfer, loader: PairLoader) -> tuple[float, int]:
    """What test.py does once the weights are loaded and the loader's processes run, and how many pairs it drew.

    The page is made for the whole data set, of which the loader gives a part.
    """
    start = time.perf_counter()
    opt, dataset = transfer.opt, loader.dataset
    names = result_names(dataset.pairs, opt.image_format)
    run = describe_run(opt, transfer.weights_file, dataset.photo_dir, dataset.fingerprint()["csv_sha256"])
    pairs = 0
    with Results(Path(opt.results_dir), names, run, resume=opt.continue_test) as results:
        for batch in loader:
            images = transfer.generate(batch)
            results.add(batch, images)
            pairs += len(images)
    results.write_page(opt.name)
    return time.perf_counter() - start, pairs
