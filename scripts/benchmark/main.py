"""How fast the networks run on this machine, beside a plain matrix product; the loader; the metrics.

    python scripts/benchmark.py                       # everything: some minutes, most of them compiling
    python scripts/benchmark.py --only inference --sizes 256x256 --no-compile

Operations are counted by torch, two for each multiply-add. "of matmul" is the fraction of the speed of a 2048^3 matrix
product timed right before in the same precision: the number to compare between machines. Times of calls are medians
of --repeats; start-ups, test.py and the evaluation run once.

Kinds of work, each with a table (--only):
  inference, training  for one image or one pair (a training step: both branches, three discriminator passes, VGG19 on
      four images, all backward passes). "starts": seconds of the first call, which compiles, with an empty cache (in a
      temporary folder), and of a new model of equal weights, which finds there what was compiled
  data       processor time of a sample in one process (both photos decoded and resized), its bytes, the time with
      --cache_images, and the seconds to read and check the lists. Without --fashion_root or --market_root, people are
      rendered and lists of the published length are made
  metrics    pixel metrics in two processes beside a scikit-image loop in one; LPIPS and Inception-v3
  results    seconds that test.py takes for an image, from rendered people on disk (random weights of the published
      size, batch 8, the default number of loader processes) to results, strips and page, beside the network alone
  precision  what bf16 and compilation change in the images of a trained network (--name and the flags of test.py that
      go with it): differences from fp32 without compilation in 8-bit levels, and the metrics of each
  onnx       onnxruntime beside PyTorch on the CPU, in turns, from images and poses to images (random weights of the
      published size). It needs the packages of requirements-onnx.txt, and is left out without --only onnx
"""

import os
import tempfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from itertools import product
from unittest.mock import patch

import torch

from models import model_names
from scripts.benchmark import data, metrics, networks, onnx_files, results
from scripts.benchmark.measure import print_table
from util.arguments import positive_int
from util.device import PRECISIONS, describe_device, select_device, use_precision
from util.errors import UserError

WORK = ("inference", "training", "data", "metrics", "results", "precision", "onnx")
TRAINED = ("name", "checkpoints_dir", "dataset_mode", "dataroot")  # flags of test.py that choose a trained network


def parse() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    sizes = list(networks.MODES)
    parser.add_argument("--only", choices=WORK, action="append", help="one kind of work (may be repeated)")
    published = networks.PUBLISHED_SIZES
    parser.add_argument("--sizes", choices=sizes, nargs="+", default=published, help="H x W of the images")
    parser.add_argument("--precisions", choices=list(PRECISIONS), nargs="+", help="default: all that the device has")
    parser.add_argument("--compile", action=BooleanOptionalAction, help="only with, or only without; default: both")
    parser.add_argument("--channels_last", action=BooleanOptionalAction, default=True,
        help="memory format N,H,W,C; on by default, in train.py and test.py on CUDA with --compile only")  # fmt: skip
    parser.add_argument("--model", choices=model_names(), default="DPTN", help="of --only training and inference")
    parser.add_argument("--batch", type=positive_int, help="batch size; default: as in the table of docs/speed.md")
    parser.add_argument("--repeats", type=positive_int, default=7, help="timed calls for each row")
    parser.add_argument("--gpu_ids", "--gpu_id", metavar="ID", help="as in train.py")
    for mode in ("fashion", "market"):
        parser.add_argument(f"--{mode}_root", metavar="DIR", help="--only data: a real data set")
    trained = parser.add_argument_group("--only precision", "as in test.py; without --name this table is left out")
    for name in TRAINED:
        trained.add_argument(f"--{name}")
    args = parser.parse_args()
    args.only = args.only or [name for name in WORK if name != "onnx" and (name != "precision" or args.name)]
    if "precision" in args.only and not args.name:
        parser.error("--only precision needs --name, the run folder of a trained network")
    if args.only == ["results"] and not set(args.sizes) & set(published):
        parser.error(f"--only results: people are rendered at {' and '.join(published)} only")
    return args


def available_precisions(device: torch.device) -> list[str]:
    names = []
    for name in PRECISIONS:
        with suppress(UserError):
            names.append(use_precision(name, device))
    return names


def main() -> None:
    args = parse()
    if "data" in args.only:  # before `select_device`, which makes the process keep freed memory
        roots = {"fashion": args.fashion_root, "market": args.market_root}
        print_table(data.measure(roots, args.repeats), data.COLUMNS)

    device = select_device(args.gpu_ids)
    precisions = args.precisions or available_precisions(device)
    variants = list(product(precisions, (False, True) if args.compile is None else (args.compile,)))
    memory_order = f"--{'' if args.channels_last else 'no-'}channels_last"
    rendered = [size for size in args.sizes if size in networks.PUBLISHED_SIZES]  # data/synthetic has no other
    test_flags = [f"--batchSize={args.batch or 8}", memory_order]
    if args.gpu_ids is not None:
        test_flags.append(f"--gpu_ids={args.gpu_ids}")
    if "metrics" in args.only:
        batch = args.batch or (8 if device.type == "cpu" else 64)
        print_table(metrics.measure_pixels(args.repeats), metrics.PIXEL_COLUMNS)
        rows = metrics.measure_networks(device, batch, precisions, args.repeats)
        print_table(rows, metrics.NETWORK_COLUMNS)
    with (
        tempfile.TemporaryDirectory() as cache,  # of compiled code
        patch.dict(os.environ, XDG_CACHE_HOME=cache, TORCHINDUCTOR_CACHE_DIR=cache),
    ):
        if "results" in args.only:
            print_table(results.measure_time(rendered, test_flags, variants, args.repeats), results.TIME_COLUMNS)
        if "precision" in args.only:
            given = [f"--{name}={value}" for name in TRAINED if (value := getattr(args, name)) is not None]
            print_table(results.measure_precision([*test_flags, *given], variants), results.PRECISION_COLUMNS)
        if "onnx" in args.only:
            compiling = sorted({compiling for _, compiling in variants})
            rows = onnx_files.measure(args.sizes, args.batch or 1, compiling, args.repeats)
            print_table(rows, onnx_files.COLUMNS)
        if work := [name for name in args.only if name in ("inference", "training")]:
            print(f"torch {torch.__version__}, {describe_device(device)}")
            flags = [memory_order, f"--model={args.model}"]
            rows = networks.measure(work, args.sizes, variants, args.batch, flags, args.repeats, device)
            print_table(rows, networks.COLUMNS)
