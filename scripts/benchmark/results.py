"""test.py from the photos on disk to its page, beside the network alone."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data.loaders import PairLoader, create_test_dataset, create_test_loader
from data.pairs import result_names
from data.synthetic.people import render_people
from inference.pose_transfer import PoseTransfer
from models import create_model
from options.test_options import TestOptions
from scripts.benchmark.measure import median_seconds, seconds, speed_flags
from scripts.benchmark.networks import MODES, one_call
from util.device import select_device
from util.errors import UserError
from util.results import Results, describe_run

PEOPLE, PHOTOS = 4, 24  # rendered identities and photos of each: some 2,000 pairs
SECONDS = 20.0  # how long the network has to work, so that the time to start the loader does not matter
COLUMNS = {"test.py": "", "batch": "", "precision": "", "compile": "", "s/image": ".4f", "network alone": ".4f",
           "ratio": ".2f", "pairs": "", "files": ""}  # fmt: skip


def measure(sizes: list[str], flags: list[str], variants: list[tuple[str, bool]], repeats: int) -> Iterator[tuple]:
    """Rows of a table, one for each size and variant (precision, whether to compile). `flags`: of test.py."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            render_people(Path(folder, "photos"), MODES[size], (0, PEOPLE), PHOTOS, seed=0, workers=2)
            common = ["--name=benchmark", f"--dataset_mode={MODES[size]}", f"--dataroot={folder}/photos", *flags]
            for precision, compiling in variants:
                with tempfile.TemporaryDirectory(dir=folder) as run:
                    folders = [f"--checkpoints_dir={run}", f"--results_dir={run}/results"]
                    opt = TestOptions().parse([*common, *folders, *speed_flags(precision, compiling)])
                    per_image, alone, pairs = time_both(random_transfer(opt), repeats)
                    files = sum(path.is_file() for path in Path(run, "results").rglob("*"))
                compiled = "yes" if compiling else "no"
                yield size, opt.batchSize, precision, compiled, per_image, alone, per_image / alone, pairs, files


def random_transfer(opt: Namespace) -> PoseTransfer:
    """A network with random weights, saved and loaded like a trained one."""
    device = select_device(opt.gpu_ids)
    create_model(opt, device, is_train=False).save_networks(opt.which_epoch)
    return PoseTransfer(opt, device)


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
        for batch in loader:
            results.add(batch, transfer.generate(batch))
    results.write_page(opt.name)
