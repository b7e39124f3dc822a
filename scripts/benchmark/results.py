"""test.py from the photos on disk to its page, beside the network alone."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from data.loaders import PairLoader, create_test_dataset, create_test_loader
from data.pairs import result_names
from data.synthetic.people import render_people
from inference.pose_transfer import PoseTransfer
from models import create_model
from options.test_options import TestOptions
from scripts.benchmark.measure import median_seconds, print_table, speed_flags, yes_no
from util.device import select_device
from util.errors import UserError
from util.results import Results, describe_run

PEOPLE, PHOTOS = 4, 24  # rendered identities and photos of each: some 2,000 pairs
SECONDS = 20.0  # how long the network has to work, so that the time to start the loader does not matter
COLUMNS = {"test.py": "", "batch": "", "precision": "", "compile": "", "s/image": ".4f", "network alone": ".4f",
           "ratio": ".2f", "pairs": "", "files": ""}  # fmt: skip


def report(
    modes: Mapping[str, str], flags: Sequence[str], variants: Sequence[tuple[str, bool]], repeats: int,
    seconds: float = SECONDS,
) -> None:  # fmt: skip
    """Print a table with a row for each size and variant (precision, whether to compile).

    `modes` names the data set of each size; `flags` are flags of test.py.
    """
    print_table(measure(modes, flags, variants, repeats, seconds), COLUMNS)


def measure(
    modes: Mapping[str, str], flags: Sequence[str], variants: Sequence[tuple[str, bool]], repeats: int, seconds: float
) -> Iterator[tuple]:
    """The rows of `report`'s table."""
    for name, mode in modes.items():
        with tempfile.TemporaryDirectory() as folder:
            render_people(Path(folder, "photos"), mode, (0, PEOPLE), PHOTOS, seed=0, workers=2)
            folders = [f"--dataroot={folder}/photos", f"--checkpoints_dir={folder}", f"--results_dir={folder}/results"]
            for precision, compiling in variants:
                speed = speed_flags(precision, compiling)
                transfer = random_transfer([f"--dataset_mode={mode}", *folders, *flags, *speed])
                whole, alone, pairs = time_both(transfer, repeats, seconds)
                files = sum(path.is_file() for path in Path(folder, "results").rglob("*"))
                shutil.rmtree(f"{folder}/results")
                batch = transfer.opt.batchSize
                yield name, batch, precision, yes_no(compiling), whole, alone, whole / alone, pairs, files


def random_transfer(flags: Sequence[str]) -> PoseTransfer:
    """A network with random weights, saved and loaded like a trained one."""
    opt = TestOptions().parse(["--name=benchmark", *flags])
    device = select_device(opt.gpu_ids)
    create_model(opt, device, is_train=False).save_networks(opt.which_epoch)
    return PoseTransfer(opt, device)


def time_both(transfer: PoseTransfer, repeats: int, seconds: float) -> tuple[float, float, int]:
    """Seconds for each image of test.py's loop and of the network in it, and the number of images of the loop.

    The network is timed before and after the loop, because the speed of a shared machine varies.
    """
    dataset, size = create_test_dataset(transfer.opt), transfer.opt.batchSize
    if len(dataset) < size:
        raise UserError(f"{len(dataset)} pairs do not fill one batch of --batch {size}")
    full_batches = dataset.subset(dataset.pairs[: len(dataset) // size * size])
    loader = create_test_loader(transfer.opt, full_batches, transfer.device)
    for batch in islice(loader, 2):  # compiles; as in test.py the loader's processes start before the network works
        transfer.generate(batch)

    def network_alone() -> None:
        transfer.model.set_input(batch)
        transfer.model.test()

    before = median_seconds(network_alone, repeats, transfer.device)
    loader.set_position(1, max(0, len(loader) - max(1, round(seconds / before))))
    whole, pairs = test_seconds(transfer, loader)
    after = median_seconds(network_alone, repeats, transfer.device)
    return whole / pairs, (before + after) / 2 / size, pairs


def test_seconds(transfer: PoseTransfer, loader: PairLoader) -> tuple[float, int]:
    """What test.py does after loading weights and starting the loader's processes; seconds and number of images.

    The page covers the whole data set, also if the loader starts in the middle of it.
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
