"""Inference and training of the published networks, beside a matrix product timed in the same run."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models import create_model
from models.base_model import BaseModel
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.benchmark.measure import (
    matmul_gflops,
    median_seconds,
    print_table,
    random_batch,
    speed_flags,
    synchronize,
    yes_no,
)  # fmt: skip
from util.device import PRECISIONS, describe_device

SIZES = {"256x256": ((256, 256), "fashion"), "128x64": ((128, 64), "market")}
BATCHES = {("inference", "256x256"): (1, 8), ("inference", "128x64"): (32,), ("training", "256x256"): (4,),
           ("training", "128x64"): (16,)}  # fmt: skip
COLUMNS = {"work": "", "size": "", "batch": "", "precision": "", "compile": "", "s/image": ".4f", "GFLOP/image": ".1f",
           "GFLOP/s": ".0f", "of matmul": ".0%", "starts s": ""}  # fmt: skip


def build(work: str, mode: str, flags: Sequence[str], device: torch.device) -> BaseModel:
    """The published network of a data set with random weights. `work`: inference or training."""
    flags = ["--name=benchmark", f"--dataset_mode={mode}", *flags]
    if work == "inference":
        return create_model(TestOptions().parse(flags), device, is_train=False)
    layers = {"fashion": 4, "market": 3}[mode]
    opt = TrainOptions().parse([*flags, "--vgg_weights=random", f"--dis_layers={layers}"])
    return create_model(opt, device, is_train=True)


def one_call(model: BaseModel, work: str, batch: dict[str, Tensor]) -> Callable[[], None]:
    """A function that goes from the loader's batch to images, or to changed weights."""

    def run() -> None:
        model.set_input(batch)
        model.test() if work == "inference" else model.optimize_parameters()

    return run


def gflop_per_image(work: str, mode: str, size: tuple[int, int], device: torch.device) -> float:
    run = one_call(build(work, mode, [], device), work, random_batch(2, size))
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2 / 1e9


def report(
    work: Sequence[str], sizes: Sequence[str], variants: Sequence[tuple[str, bool]], batch: int | None,
    flags: Sequence[str], repeats: int, device: torch.device,
) -> None:  # fmt: skip
    """Print a table. `variants`: precisions, and whether to compile; `flags`: of train.py and test.py alike."""
    print(f"torch {torch.__version__}, {describe_device(device)}")
    print_table(measure(work, sizes, variants, batch, flags, repeats, device), COLUMNS)


def measure(
    work: Sequence[str], sizes: Sequence[str], variants: Sequence[tuple[str, bool]], batch: int | None,
    flags: Sequence[str], repeats: int, device: torch.device,
) -> Iterator[tuple]:  # fmt: skip
    """The rows of `report`'s table."""
    for kind, name in product(work, sizes):
        size, mode = SIZES[name]
        gflop = gflop_per_image(kind, mode, size, device)
        for (precision, compiling), count in product(variants, [batch] if batch else BATCHES[kind, name]):
            run, starts = start_twice(kind, mode, [*speed_flags(precision, compiling), *flags], count, device)
            peak = matmul_gflops(PRECISIONS[precision], device)
            seconds = median_seconds(run, repeats, device) / count
            rate = gflop / seconds
            yield (
                kind, name, count, precision, yes_no(compiling), seconds, gflop, rate, rate / peak,
                ", ".join(f"{start:.1f}" for start in starts),
            )  # fmt: skip


def start_twice(
    work: str, mode: str, flags: Sequence[str], count: int, device: torch.device
) -> tuple[Callable[[], None], list[float]]:
    """The function to time, and the seconds of the first call of two models with equal weights.

    The second model finds in the cache what was compiled for the first one.
    """
    (size,) = (size for size, other in SIZES.values() if other == mode)
    batch = random_batch(count, size)
    starts = []
    for _ in range(2):
        torch.compiler.reset()
        torch.manual_seed(0)
        run = one_call(build(work, mode, flags, device), work, batch)
        start = time.perf_counter()
        run()
        synchronize(device)
        starts.append(time.perf_counter() - start)
    run()
    return run, starts
