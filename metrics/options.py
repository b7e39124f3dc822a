"""Flags of `python -m metrics.metrics`."""

import argparse
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from data import find_dataset
from metrics.evaluation import DEFAULT, MASKED, METRICS
from metrics.feature_cache import default_folder
from metrics.protocols import PROTOCOLS
from util.arguments import count, positive_int
from util.device import PRECISIONS
from util.parallel import available_cores

BASELINES = ("copy_source", "mean_image")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metrics.metrics",
        description="Evaluate generated images against their target photos.",
        allow_abbrev=False,
    )
    add = parser.add_argument_group("images").add_argument
    add("--gt_path", type=Path, metavar="DIR", help="the target photos")
    add(
        "--distorated_path", "--distorted_path", type=Path, metavar="DIR",
        help="the generated images, named SOURCE_2_TARGET_vis.jpg or .png",
    )  # fmt: skip
    add("--fid_real_path", type=Path, metavar="DIR", help="real photos that fid compares with: the training folder")
    add("--source_path", type=Path, metavar="DIR", help="the source photos (default: --gt_path)")
    add("--market", action="store_true", help="Market-1501, 128 x 64 (default: DeepFashion, 256 x 176)")
    add("--name", help="name of this evaluation (default: the folder of the generated images)")
    add(
        "--pairs", metavar="CSV",
        help="pairs that must all have a result; 'none': pairs are inferred from file names, missing results cannot be "
        "detected (default: the data set's own csv beside --gt_path, or none where there is no such file)",
    )  # fmt: skip
    add("--annotations", type=Path, metavar="CSV", help="keypoints of the targets, for mask metrics")
    add("--allow_missing", action="store_true", help="leave out and count what cannot be evaluated instead of stopping")
    add(
        "--baseline", choices=BASELINES,
        help="evaluate the source photos, or the mean of the --fid_real_path photos, instead of generated images",
    )  # fmt: skip

    add = parser.add_argument_group("numbers").add_argument
    add(
        "--protocol", type=names_from(PROTOCOLS), action="extend", metavar="NAMES",
        help=f"one or several of {', '.join(PROTOCOLS)} (default: dptn), each in columns of its own",
    )  # fmt: skip
    add(
        "--metrics", type=names_from(METRICS), action="extend", metavar="NAMES",
        help=f"some of {', '.join(METRICS)} (default: {','.join(DEFAULT)})",
    )  # fmt: skip
    add("--calculate_mask", action="store_true", help=f"add {', '.join(MASKED)}")

    add = parser.add_argument_group("networks").add_argument
    add("--alexnet_weights", default="imagenet", metavar="W", help="imagenet (torchvision's, the default) or a file")
    add(
        "--inception_weights", default="imagenet", metavar="W",
        help="of the dptn protocol: imagenet (torchvision's, the default) or a file",
    )  # fmt: skip
    add(
        "--fid_inception_weights", default="pytorch-fid", metavar="W",
        help="of the standard protocol: pytorch-fid (the default) or a file",
    )  # fmt: skip
    add("--skip_unavailable", action="store_true", help="leave out metrics whose weights are unavailable")
    add(
        "--cache_dir", type=Path, default=default_folder(), metavar="DIR",
        help="cache of the real photos' features (default: a folder in the user's cache)",
    )  # fmt: skip

    add = parser.add_argument_group("output").add_argument
    add("--out", type=Path, metavar="JSONL", help="append here (default: metrics.jsonl beside the results' folder)")
    add("--per_image", type=Path, metavar="CSV", help="write a row for each pair; empty cells where it was left out")
    add("--html", type=Path, metavar="DIR", help="write a page with histograms and the worst and best pairs")
    add("--checkpoint", type=Path, metavar="FILE", help="record these weights as the ones that generated the images")
    add("--compare", type=Path, metavar="JSONL", help="only print the evaluations in a file side by side")

    add = parser.add_argument_group("speed").add_argument
    add("--gpu_ids", "--gpu_id", metavar="ID", help="CUDA GPU, -1 for the CPU; default: a GPU if there is one")
    add("--batch_size", type=positive_int, metavar="N", help="images in a batch (default: 64 on a GPU, 8 on the CPU)")
    add(
        "--nThreads", type=count, default=min(8, available_cores()), metavar="N",
        help="processes that decode and compute pixel metrics (default: one per core, 8 at most)",
    )  # fmt: skip
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of the networks; bf16 changes digits")
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of a command line, with all defaults filled in; exits with status 2 on a bad one."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.compare:
        others = {name for name, value in vars(args).items() if value != parser.get_default(name)} - {"compare"}
        if others:
            parser.error(f"--compare evaluates nothing: leave out {', '.join(f'--{name}' for name in sorted(others))}")
        return args
    if not args.gt_path:
        parser.error("--gt_path is needed: the folder of the target photos")
    if bool(args.distorated_path) == bool(args.baseline):
        parser.error("give one of --distorated_path (the generated images) and --baseline")
    fill_in_defaults(args)
    check_inputs(parser, args)
    check_folders(parser, args)
    return args


def fill_in_defaults(args: argparse.Namespace) -> None:
    args.pairs, args.paired_by = find_pairs(args)
    args.source_path = args.source_path or args.gt_path
    args.protocol = list(dict.fromkeys(args.protocol or ["dptn"]))
    wanted = [*(args.metrics or DEFAULT), *(MASKED if args.calculate_mask else [])]
    args.metrics = [name for name in METRICS if name in wanted]
    if not args.out:  # beside the folder of results; a baseline has none, so it takes test.py's default
        folder = Path(os.path.abspath(args.distorated_path)).parent if args.distorated_path else Path("results")
        args.out = folder / "metrics.jsonl"


def check_inputs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Stop where something that the wanted numbers need is not given."""
    if args.baseline and not args.pairs:
        parser.error(f"--baseline {args.baseline} needs --pairs")
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"--checkpoint {args.checkpoint}: no such file")
    if set(args.metrics) & set(MASKED) and not args.annotations:
        parser.error("mask metrics need the keypoints of the targets: --annotations CSV")
    needs_real = ["--metrics fid"] * ("fid" in args.metrics) + ["--baseline mean_image"] * (
        args.baseline == BASELINES[1]
    )
    if needs_real and not args.fid_real_path:
        parser.error(f"{needs_real[0]} needs the training photos: --fid_real_path DIR")
    if args.per_image and not any(METRICS[name].per_image for name in args.metrics):
        parser.error(f"--per_image: {', '.join(args.metrics)} has no value for a single image; add other --metrics")


def check_folders(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Stop where the cache or the page would be written among data or results."""
    for folder in filter(None, (args.gt_path, args.distorated_path, args.fid_real_path, args.source_path)):
        if args.cache_dir.resolve().is_relative_to(folder.resolve()):
            parser.error(f"--cache_dir {args.cache_dir} lies in {folder}; keep it out of data and results")
        if args.html and args.html.resolve() == folder.resolve():
            parser.error(f"--html {args.html} holds data or results, whose page it would overwrite; name a new folder")


def data_set_name(args: argparse.Namespace) -> str:
    return "market" if args.market else "fashion"


def find_pairs(args: argparse.Namespace) -> tuple[Path | None, str]:
    """The csv of the pairs, or None, and what chose it."""
    if args.pairs == "none":
        return None, "names"
    if args.pairs:
        return Path(args.pairs), "--pairs"
    photos = Path(os.path.abspath(args.gt_path))
    own = photos.parent / find_dataset(data_set_name(args)).pairs_csv.format(phase=photos.name)
    return (own, "the data set's csv beside --gt_path") if own.is_file() else (None, "names")


def names_from(known: Collection[str]) -> Callable[[str], list[str]]:
    """An argparse type: names with commas between them, each one of `known`."""

    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(known)}")
        return names

    return parse_names
