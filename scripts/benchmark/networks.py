"""Inference and training of the published networks, beside a matrix product timed in the same run."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from data import find_dataset
from models import create_model
from models.base_model import BaseModel
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.benchmark.measure import count_gflop, matmul_gflops, median_seconds, seconds, speed_flags
from util.device import PRECISIONS

# H x W -> the data set with networks of this size
MODES = {"256x256": "fashion", "128x64": "market", "512x352": "fashion512"}
PUBLISHED_SIZES = ["256x256", "128x64"]
DIS_LAYERS = {"fashion": 4, "market": 3, "fashion512": 4}
BATCHES = {("inference", "fashion"): (1, 8), ("inference", "market"): (32,), ("training", "fashion"): (4,),
           ("training", "market"): (16,), ("inference", "fashion512"): (1,),
           ("training", "fashion512"): (1,)}  # fmt: skip
COLUMNS = {"work": "", "size": "", "batch": "", "precision": "", "compile": "", "s/image": ".4f", "GFLOP/image": ".1f",
           "GFLOP/s": ".0f", "of matmul": ".0%", "starts s": ""}  # fmt: skip


def build(work: str, mode: str, flags: list[str], device: torch.device) -> BaseModel:
    """The published network of a data set with random weights. `work`: inference or training."""
    flags = ["--name=benchmark", f"--dataset_mode={mode}", *flags]
    if work == "inference":
        return create_model(TestOptions().parse(flags), device, is_train=False)
    opt = TrainOptions().parse([*flags, "--vgg_weights=random", f"--dis_layers={DIS_LAYERS[mode]}"])
    return create_model(opt, device, is_train=True)


def random_batch(batch: int, mode: str) -> dict[str, Tensor]:
    """Noise in the form of a loader's batch."""
    size, data = find_dataset(mode).network_size, {}
    for role in ("source", "target"):
        data[f"{role}_image"] = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        data[f"{role}_keypoints"] = torch.randint(0, min(size), (batch, 18, 2)).float()
    return data


def one_call(model: BaseModel, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A function that goes from the loader's batch to images (inference) or to changed weights (training)."""

    def run() -> None:
        model.set_input(batch)
        model.optimize_parameters() if model.is_train else model.test()

    return run


def measure(
    work: list[str], sizes: list[str], variants: list[tuple[str, bool]], batch: int | None, flags: list[str],
    repeats: int, device: torch.device,
) -> Iterator[tuple]:  # fmt: skip
    """Rows of a table. `variants`: precisions, and whether to compile; `flags`: of train.py and test.py alike."""
    for kind, size in product(work, sizes):
        mode = MODES[size]
        gflop = count_gflop(one_call(build(kind, mode, flags, device), random_batch(2, mode))) / 2
        for (precision, compiling), count in product(variants, [batch] if batch else BATCHES[kind, mode]):
            data, starts = random_batch(count, mode), []
            for _ in range(2):  # the second model finds in the cache what was compiled for the first one
                torch.compiler.reset()
                torch.manual_seed(0)
                run = one_call(build(kind, mode, [*speed_flags(precision, compiling), *flags], device), data)
                starts.append(f"{seconds(run, device):.1f}")
            run()
            peak = matmul_gflops(PRECISIONS[precision], device)
            per_image = median_seconds(run, repeats, device) / count
            rate = gflop / per_image
            yield (kind, size, count, precision, "yes" if compiling else "no", per_image, gflop, rate, rate / peak,
                   ", ".join(starts))  # fmt: skip
