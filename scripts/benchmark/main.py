"""How fast the networks run here, against what the processor can do; the loader; the metrics.

    python scripts/benchmark.py                       # everything: some minutes, most of them compiling
    python scripts/benchmark.py --only inference --sizes 256x256 --no-compile

Every row stands beside a 2048^3 matrix product timed right before it in the same precision: "of matmul" is the fraction
of that rate, the number to compare between machines. Times are medians; the first calls (compilation) are not counted,
but shown under "starts": with an empty cache, and for a new model of equal weights that finds there what was compiled
(in a temporary folder). Operations are counted by torch, two a multiply-add, for one image (inference) or one pair
(training step: both branches, three discriminator passes, VGG19 on four images, all backward passes).

--only data: processor time of a sample in one process (both photos decoded and resized), its bytes, the same with
--cache_images, and the seconds to read and check the lists. Without a data root people are drawn, and lists of the
published length are made.

--only metrics: pixel metrics in two processes beside a scikit-image loop in one; LPIPS and Inception-v3 beside the
matrix product.

--only results: test.py in seconds an image, from drawn people on disk (random weights of the published size, batch 8,
the loader's processes as by default) to results, strips and page, beside the network alone on one of its batches.

--only precision: what bf16 and compilation change in the images of a trained network (--name and the flags of test.py
that go with it): differences from fp32 without compilation in 8-bit levels, and the metrics of each.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from models import create_model
from models.base_model import BaseModel
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.benchmark import data as data_part
from scripts.benchmark import metrics as metrics_part
from scripts.benchmark import precision as precision_part
from scripts.benchmark import results as results_part
from util.arguments import positive_int
from util.device import PRECISIONS, describe_device, select_device

SIZES = {"256x256": ((256, 256), "fashion"), "128x64": ((128, 64), "market")}
BATCHES = {("inference", "256x256"): (1, 8), ("inference", "128x64"): (32,), ("training", "256x256"): (4,),
           ("training", "128x64"): (16,)}  # fmt: skip
WORK = ("inference", "training", "data", "metrics", "results", "precision")
TRAINED = ("name", "checkpoints_dir", "dataset_mode", "dataroot")  # flags of test.py that say which network draws what


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """GFLOP/s of a size^3 matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b), 9, device) / 1e9


def random_batch(batch: int, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """What a loader gives, filled with noise."""
    data = {}
    for role in ("source", "target"):
        data[f"{role}_image"] = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        data[f"{role}_keypoints"] = torch.randint(0, min(size), (batch, 18, 2)).float()
    return data


def speed_flags(precision: str, compiling: bool) -> list[str]:
    return [f"--precision={precision}", "--compile" if compiling else "--no-compile"]


def memory_order(args: argparse.Namespace) -> str:
    return "--channels_last" if args.channels_last else "--no-channels_last"


def build(work: str, mode: str, flags: list[str], device: torch.device) -> BaseModel:
    flags = ["--name=benchmark", f"--dataset_mode={mode}", *flags]
    if work == "inference":
        return create_model(TestOptions().parse(flags), device, is_train=False)
    layers = {"fashion": 4, "market": 3}[mode]
    return create_model(
        TrainOptions().parse([*flags, "--vgg_weights=random", f"--dis_layers={layers}"]), device, is_train=True
    )


def runner(model: BaseModel, work: str, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One call from the loader's batch to images, or to changed weights."""

    def run() -> None:
        model.set_input(batch)
        model.test() if work == "inference" else model.optimize_parameters()

    return run


def gflop_per_image(work: str, mode: str, size: tuple[int, int], device: torch.device) -> float:
    run = runner(build(work, mode, [], device), work, random_batch(2, size))
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", choices=WORK, action="append", help="one kind of work (may be repeated)")
    parser.add_argument("--sizes", choices=list(SIZES), nargs="+", default=list(SIZES), help="H x W of the images")
    parser.add_argument("--precisions", choices=list(PRECISIONS), nargs="+", default=list(PRECISIONS))
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="only with, or only without; default: both"
    )
    parser.add_argument(
        "--channels_last", action=argparse.BooleanOptionalAction, default=True, help="memory order N,H,W,C"
    )
    parser.add_argument("--batch", type=positive_int, help="batch size; default: as in the README's table")
    parser.add_argument("--repeats", type=positive_int, default=7, help="timed calls a row")
    parser.add_argument("--gpu_ids", "--gpu_id", metavar="ID", help="as in train.py")
    parser.add_argument("--fashion_root", metavar="DIR", help="--only data: a real data set")
    parser.add_argument("--market_root", metavar="DIR", help="--only data: a real data set")
    trained = parser.add_argument_group("--only precision", "as in test.py; without --name this part is left out")
    for name in TRAINED:
        trained.add_argument(f"--{name}")
    args = parser.parse_args()
    work = args.only or [name for name in WORK if name != "precision" or args.name]
    if "precision" in work and not args.name:
        parser.error("--only precision needs --name, the run folder of a trained network")
    if "data" in work:
        roots = {"fashion": args.fashion_root, "market": args.market_root}
        data_part.report(roots, args.repeats)
    if "metrics" in work:
        metrics_part.report_pixels(args.repeats)
        device = select_device(args.gpu_ids)
        measures = (median_seconds, matmul_rate)
        metrics_part.report_networks(device, args.batch, args.precisions, args.repeats, *measures)
    compiled = (False, True) if args.compile is None else (args.compile,)
    variants = [speed_flags(*variant) for variant in product(args.precisions, compiled)]
    flags = [f"--batchSize={args.batch or 8}", memory_order(args)]
    if args.gpu_ids is not None:
        flags.append(f"--gpu_ids={args.gpu_ids}")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # compiled code
        if "results" in work:
            modes = {name: SIZES[name][1] for name in args.sizes}
            results_part.report(modes, flags, variants, args.repeats, median_seconds)
        if "precision" in work:
            flags += [f"--{name}={value}" for name in TRAINED if (value := getattr(args, name)) is not None]
            precision_part.report(flags, variants)
        if slow := [name for name in work if name in ("inference", "training")]:
            networks(args, slow)


def networks(args: argparse.Namespace, work: Sequence[str]) -> None:
    """Print a table of the kinds of `work` on the networks."""
    device = select_device(args.gpu_ids)
    print(f"torch {torch.__version__}, {describe_device(device)}")
    print("| work | size | batch | precision | compile | s/image | GFLOP/image | GFLOP/s | of matmul | starts s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind, name in product(work, args.sizes):
        size, mode = SIZES[name]
        gflop = gflop_per_image(kind, mode, size, device)
        compiled = (False, True) if args.compile is None else (args.compile,)
        batches = (args.batch,) if args.batch else BATCHES[kind, name]
        for precision, compiling, batch in product(args.precisions, compiled, batches):
            flags = [*speed_flags(precision, compiling), memory_order(args)]
            batch_of_noise = random_batch(batch, size)
            starts = []
            for _ in range(2):
                torch.compiler.reset()
                torch.manual_seed(0)
                run = runner(build(kind, mode, flags, device), kind, batch_of_noise)
                start = time.perf_counter()
                run()
                synchronize(device)
                starts.append(f"{time.perf_counter() - start:.1f}")
            run()
            peak = matmul_rate(PRECISIONS[precision], device)
            seconds = median_seconds(run, args.repeats, device) / batch
            rate = gflop / seconds
            print(
                f"| {kind} | {name} | {batch} | {precision} | {'yes' if compiling else 'no'} | {seconds:.4f} "
                f"| {gflop:.1f} | {rate:.0f} | {rate / peak:.0%} | {', '.join(starts)} |",
                flush=True,
            )
