"""Flags of `python -m metrics.metrics`."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from data import find_dataset
from metrics.evaluation import DEFAULT, MASKED, METRICS
from metrics.protocols import PROTOCOLS
from util.arguments import count, positive_int
from util.device import PRECISIONS
from util.parallel import available_cores


def make_parser() -> ArgumentParser:
    description = "Evaluate generated images against their target photos."
    parser = ArgumentParser(prog="python -m metrics.metrics", description=description, allow_abbrev=False)
    folder, csv, jsonl = ({"type": Path, "metavar": metavar} for metavar in ("DIR", "CSV", "JSONL"))

    add = parser.add_argument_group("images").add_argument
    add("--gt_path", **folder, help="the target photos")
    add("--distorated_path", "--distorted_path", **folder, help="generated images, SOURCE_2_TARGET_vis.jpg or .png")
    add("--fid_real_path", **folder, help="real photos that fid compares with: the training folder")
    add("--source_path", **folder, help="the source photos (default: --gt_path)")
    add("--market", action="store_true", help="Market-1501, 128 x 64 (default: DeepFashion, 256 x 176)")
    add("--name", help="name of this evaluation (default: the folder of the generated images)")
    add("--pairs", metavar="CSV",
        help="pairs that must all have a result; 'none': pairs are inferred from file names, missing results cannot be "
        "detected (default: the data set's own csv beside --gt_path, or none where there is no such file)")  # fmt: skip
    add("--annotations", **csv, help="keypoints of the targets, for mask metrics")
    add("--allow_missing", action="store_true", help="leave out and count what cannot be evaluated instead of stopping")
    add("--baseline", choices=("copy_source", "mean_image"),
        help="evaluate the source photos, or the mean of the --fid_real_path photos, instead of generated images")  # fmt: skip

    add = parser.add_argument_group("numbers").add_argument
    add("--protocol", type=names_from(PROTOCOLS), action="extend", metavar="NAMES",
        help=f"one or several of {', '.join(PROTOCOLS)} (default: dptn), each in columns of its own")  # fmt: skip
    add("--metrics", type=names_from(METRICS), action="extend", metavar="NAMES",
        help=f"some of {', '.join(METRICS)} (default: {','.join(DEFAULT)})")  # fmt: skip
    add("--calculate_mask", action="store_true", help=f"add {', '.join(MASKED)}")

    add = parser.add_argument_group("networks").add_argument
    add("--alexnet_weights", default="imagenet", metavar="W", help="imagenet (torchvision's, the default) or a file")
    add("--inception_weights", default="imagenet", metavar="W",
        help="of the dptn protocol: imagenet (torchvision's, the default) or a file")  # fmt: skip
    add("--fid_inception_weights", default="pytorch-fid", metavar="W",
        help="of the standard protocol: pytorch-fid (the default) or a file")  # fmt: skip
    add("--skip_unavailable", action="store_true", help="leave out metrics whose weights are unavailable")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dptn_metrics"
    add("--cache_dir", **folder, default=cache,
        help="cache of the real photos' features (default: a folder in the user's cache)")  # fmt: skip

    add = parser.add_argument_group("output").add_argument
    add("--out", **jsonl, help="append here (default: metrics.jsonl beside the results' folder)")
    add("--per_image", **csv, help="write a row for each pair; the cells of a pair that was left out are empty")
    add("--html", **folder, help="write a page with histograms and the worst and best pairs")
    add("--checkpoint", type=Path, metavar="FILE", help="record these weights as the ones that generated the images")
    add("--compare", **jsonl, help="only print the evaluations in a file side by side")

    add = parser.add_argument_group("speed").add_argument
    add("--gpu_ids", "--gpu_id", metavar="ID", help="CUDA GPU, -1 for the CPU; default: a GPU if there is one")
    add("--batch_size", type=positive_int, metavar="N", help="images in a batch (default: 64 on a GPU, 8 on the CPU)")
    add("--nThreads", type=count, default=min(8, available_cores()), metavar="N",
        help="processes that decode and compute pixel metrics (default: one per core, 8 at most)")  # fmt: skip
    add("--precision", choices=list(PRECISIONS), default="fp32", help="of the networks; bf16 changes digits")
    return parser


def names_from(known: Collection[str]) -> Callable[[str], list[str]]:
    """An argparse type: names with commas between them, each one of `known`."""

    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise ArgumentTypeError(f"'{unknown[0]}' is not one of {', '.join(known)}")
        return names

    return parse_names


def parse(argv: Sequence[str] | None = None) -> Namespace:
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
    for wrong, message in problems(args):
        if wrong:
            parser.error(message)
    return args


def fill_in_defaults(args: Namespace) -> None:
    """Set the defaults that depend on other flags, the data set's name, and `paired_by`: what chose the pairs."""
    args.data_set = "market" if args.market else "fashion"
    args.name = args.name or args.baseline or args.distorated_path.name
    args.source_path = args.source_path or args.gt_path
    args.protocol = list(dict.fromkeys(args.protocol or ["dptn"]))
    wanted = [*(args.metrics or DEFAULT), *(MASKED if args.calculate_mask else [])]
    args.metrics = [name for name in METRICS if name in wanted]
    photos = Path(os.path.abspath(args.gt_path))
    own_pairs = photos.parent / find_dataset(args.data_set).pairs_csv.format(phase=photos.name)
    if args.pairs and args.pairs != "none":
        args.pairs, args.paired_by = Path(args.pairs), "--pairs"
    elif not args.pairs and own_pairs.is_file():
        args.pairs, args.paired_by = own_pairs, "the data set's csv beside --gt_path"
    else:
        args.pairs, args.paired_by = None, "names"
    if not args.out:  # beside the folder of results; a baseline has none, so it takes test.py's default
        folder = Path(os.path.abspath(args.distorated_path)).parent if args.distorated_path else Path("results")
        args.out = folder / "metrics.jsonl"


def problems(args: Namespace) -> list[tuple[object, str]]:
    """(Whether it applies, its message) for each reason why this command line cannot be evaluated."""
    masked = set(args.metrics) & set(MASKED)
    per_image = any(METRICS[name].per_image for name in args.metrics)
    real = "needs the training photos: --fid_real_path DIR"
    found = [
        (args.baseline and not args.pairs, f"--baseline {args.baseline} needs --pairs"),
        (args.checkpoint and not args.checkpoint.is_file(), f"--checkpoint {args.checkpoint}: no such file"),
        (masked and not args.annotations, "mask metrics need the keypoints of the targets: --annotations CSV"),
        ("fid" in args.metrics and not args.fid_real_path, f"--metrics fid {real}"),
        (args.baseline == "mean_image" and not args.fid_real_path, f"--baseline mean_image {real}"),
        (args.per_image and not per_image,
         f"--per_image: {', '.join(args.metrics)} has no value for a single image; add other --metrics"),
    ]  # fmt: skip
    for folder in filter(None, (args.gt_path, args.distorated_path, args.fid_real_path, args.source_path)):
        found += [
            (args.cache_dir.resolve().is_relative_to(folder.resolve()),
             f"--cache_dir {args.cache_dir} lies in {folder}; keep it out of data and results"),
            (args.html and args.html.resolve() == folder.resolve(),
             f"--html {args.html} holds data or results, whose page it would overwrite; name a new folder"),
        ]  # fmt: skip
    return found
