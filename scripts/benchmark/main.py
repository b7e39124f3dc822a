"""How fast the networks run here, against what the processor can do; the loader; the metrics.

    python scripts/benchmark.py                       # everything: some minutes, most of them compiling
    python scripts/benchmark.py --only inference --sizes 256x256 --no-compile

Every row stands beside a 2048^3 matrix product timed right before it in the same precision: "of matmul" is the fraction
of that rate, the number to compare between machines. Times are medians; the first calls (compilation) are not counted,
but shown under "starts": with an empty cache, and for a new model of equal weights that finds there what was compiled
(in a temporary folder). Operations are counted by torch, two for each multiply-add, for one image (inference) or one
pair (training step: both branches, three discriminator passes, VGG19 on four images, all backward passes).

--only data: processor time of a sample in one process (both photos decoded and resized), its bytes, the same with
--cache_images, and the seconds to read and check the lists. Without a data root, people are rendered and lists of the
published length are made.

--only metrics: pixel metrics in two processes beside a scikit-image loop in one; LPIPS and Inception-v3 beside the
matrix product.

--only results: seconds that test.py takes for an image, from rendered people on disk (random weights of the published
size, batch 8, the default number of loader processes) to results, strips and page, beside the network alone on one of
its batches.

--only precision: what bf16 and compilation change in the images of a trained network (--name and the flags of test.py
that go with it): differences from fp32 without compilation in 8-bit levels, and the metrics of each.
"""

import argparse
import os
import tempfile
from itertools import product

from scripts.benchmark import data, metrics, networks, precision, results
from util.arguments import positive_int
from util.device import PRECISIONS, select_device

WORK = ("inference", "training", "data", "metrics", "results", "precision")
TRAINED = ("name", "checkpoints_dir", "dataset_mode", "dataroot")  # flags of test.py that choose a trained network


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", choices=WORK, action="append", help="one kind of work (may be repeated)")
    parser.add_argument(
        "--sizes", choices=list(networks.SIZES), nargs="+", default=list(networks.SIZES), help="H x W of the images"
    )
    parser.add_argument("--precisions", choices=list(PRECISIONS), nargs="+", default=list(PRECISIONS))
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="only with, or only without; default: both"
    )
    parser.add_argument(
        "--channels_last", action=argparse.BooleanOptionalAction, default=True, help="memory order N,H,W,C"
    )
    parser.add_argument("--batch", type=positive_int, help="batch size; default: as in the table of docs/speed.md")
    parser.add_argument("--repeats", type=positive_int, default=7, help="timed calls for each row")
    parser.add_argument("--gpu_ids", "--gpu_id", metavar="ID", help="as in train.py")
    parser.add_argument("--fashion_root", metavar="DIR", help="--only data: a real data set")
    parser.add_argument("--market_root", metavar="DIR", help="--only data: a real data set")
    trained = parser.add_argument_group("--only precision", "as in test.py; without --name this part is left out")
    for name in TRAINED:
        trained.add_argument(f"--{name}")
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    work = args.only or [name for name in WORK if name != "precision" or args.name]
    if "precision" in work and not args.name:
        parser.error("--only precision needs --name, the run folder of a trained network")
    variants = list(product(args.precisions, (False, True) if args.compile is None else (args.compile,)))
    memory_order = "--channels_last" if args.channels_last else "--no-channels_last"
    test_flags = [f"--batchSize={args.batch or 8}", memory_order]
    if args.gpu_ids is not None:
        test_flags.append(f"--gpu_ids={args.gpu_ids}")

    if "data" in work:
        data.report({"fashion": args.fashion_root, "market": args.market_root}, args.repeats)
    if "metrics" in work:
        metrics.report_pixels(args.repeats)
        metrics.report_networks(select_device(args.gpu_ids), args.batch, args.precisions, args.repeats)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # an empty cache of compiled code
        if "results" in work:
            results.report({name: networks.SIZES[name][1] for name in args.sizes}, test_flags, variants, args.repeats)
        if "precision" in work:
            given = [f"--{name}={value}" for name in TRAINED if (value := getattr(args, name)) is not None]
            precision.report([*test_flags, *given], variants)
        if kinds := [name for name in work if name in ("inference", "training")]:
            device = select_device(args.gpu_ids)
            networks.report(kinds, args.sizes, variants, args.batch, [memory_order], args.repeats, device)
