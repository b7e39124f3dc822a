"""Flags of `python -m metrics.metrics`, and what `python -m metrics.reid` shares with them."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data import dataset_names, find_dataset
from metrics.evaluation import DEFAULT, MASKED, METRICS
from metrics.naming import OTHERS
from metrics.pixel import WINDOW
from metrics.protocols import PROTOCOLS
from util.arguments import count, positive_int
from util.device import PRECISIONS
from util.home import user_cache
from util.worker_processes import available_cores

FOLDER, CSV, JSONL = ({"type": Path, "metavar": metavar} for metavar in ("DIR", "CSV", "JSONL"))
GPU_BATCH, CPU_BATCH = 64, 8
NAMES = {"type": lambda text: text.split(","), "action": "extend", "metavar": "NAMES"}


def add_image_flags(parser: ArgumentParser) -> Callable[..., Any]:
    """Which images are compared with which photos. Returns the function that adds more flags to this group."""
    add = parser.add_argument_group("images").add_argument
    add("--gt_path", **FOLDER, help="the target photos")
    add("--distorated_path", "--distorted_path", **FOLDER, help="generated images, SOURCE_2_TARGET_vis.jpg or .png")
    add("--source_path", **FOLDER, help="the source photos (default: --gt_path)")
    add("--dataset_mode", default="fashion", choices=dataset_names(), help="data set, which knows the photos' size")
    add("--market", action="store_const", const="market", dest="dataset_mode", help="--dataset_mode market")
    add("--name", help="name of this evaluation (default: the folder of the generated images)")
    add("--pairs", metavar="CSV",
        help="pairs that must all have a result; 'none': pairs are inferred from file names, missing results cannot be "
        "detected (default: the data set's own csv beside --gt_path, or none where there is no such file)")  # fmt: skip
    add("--naming", default="dptn", metavar="|".join(("dptn", *OTHERS, "PATTERN")),
        help="names of the generated images: of a project, or a pattern such as '{source}_to_{target}.png', of the "
        "photos' names without suffix, with '_' for '/'")  # fmt: skip
    add("--allow_missing", action="store_true", help="leave out and count what cannot be evaluated instead of stopping")
    return add


def add_cache_flag(add: Callable[..., Any]) -> None:
    add("--cache_dir", **FOLDER, default=user_cache("dptn_metrics"),
        help="cache of the real photos' features (default: in the user cache)")  # fmt: skip


def make_parser() -> ArgumentParser:
    description = "Evaluate generated images against their target photos."
    parser = ArgumentParser(prog="python -m metrics.metrics", description=description, allow_abbrev=False)
    weights = {"default": "imagenet", "metavar": "W"}

    add = add_image_flags(parser)
    add("--fid_real_path", **FOLDER,
        help="real photos that fid compares with: the training folder, or FILE.npz of metrics.statistics")  # fmt: skip
    add("--annotations", **CSV, help="keypoints of the targets, for mask metrics")
    add("--baseline", choices=("copy_source", "mean_image"),
        help="instead of generated images, evaluate the source photos or the mean of the training photos")  # fmt: skip

    add = parser.add_argument_group("numbers").add_argument
    add("--protocol", **NAMES, help=f"one or several of {', '.join(PROTOCOLS)} (default: dptn), in separate columns")
    add("--metrics", **NAMES, help=f"some of {', '.join(METRICS)} (default: {','.join(DEFAULT)})")
    add("--bootstrap", type=count, default=0, metavar="N",
        help="95 %% intervals from N draws of pairs with replacement; of fid, each takes some 10 s")  # fmt: skip
    add("--against", **FOLDER, help="other results of the same pairs: the differences with their intervals")
    add("--calculate_mask", action="store_true", help=f"add {', '.join(MASKED)}")

    add = parser.add_argument_group("networks").add_argument
    add("--alexnet_weights", **weights, help="weights of LPIPS: imagenet (torchvision's, the default) or a file")
    add_inception_flags(add)
    add("--skip_unavailable", action="store_true", help="leave out metrics whose weights are unavailable")
    add_cache_flag(add)

    add_output_flags(parser)
    add_speed_flags(parser)
    return parser


def add_inception_flags(add: Callable[..., Any]) -> None:
    add("--inception_weights", default="imagenet", metavar="W",
        help="weights of FID and IS in papers' protocols: imagenet (torchvision's, the default) or a file")  # fmt: skip
    add("--fid_inception_weights", default="pytorch-fid", metavar="W",
        help="weights of FID and IS in the standard protocol: pytorch-fid (the default) or a file")  # fmt: skip


def add_output_flags(parser: ArgumentParser) -> Callable[..., Any]:
    """What is written. Returns the function that adds more flags to this group."""
    add = parser.add_argument_group("output").add_argument
    add("--out", **JSONL, help="append the numbers to this file (default: metrics.jsonl beside the results' folder)")
    add("--per_image", **CSV, help="write a row for each pair; the cells of a pair that was left out are empty")
    add("--html", **FOLDER, help="write a page with histograms and the worst and best pairs")
    add("--checkpoint", type=Path, metavar="FILE", help="record these weights as the ones that generated the images")
    add("--compare", **JSONL, help="only print the evaluations in this file side by side")
    add("--published", action="store_true", help="with --compare: also what papers print, in the same protocol only")
    return add


def add_speed_flags(parser: ArgumentParser, cpu_batch: int = CPU_BATCH) -> None:
    add = parser.add_argument_group("speed").add_argument
    add("--gpu_ids", "--gpu_id", metavar="ID", help="CUDA GPU, -1 for the CPU; default: a GPU if there is one")
    add("--batch_size", type=positive_int, metavar="N",
        help=f"images in a batch (default: {GPU_BATCH} on a GPU, {cpu_batch} on the CPU)")  # fmt: skip
    add("--nThreads", type=count, default=min(8, available_cores()), metavar="N",
        help="processes that decode and compute pixel metrics (default: one per core, 8 at most)")  # fmt: skip
    add("--precision", choices=list(PRECISIONS), default="fp32",
        help="of the networks; tf32 (CUDA only) and bf16 are less exact")  # fmt: skip


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Options of a command line, with all defaults filled in; exits with status 2 on a bad one."""
    parser = make_parser()
    args = parse_shared(parser, argv)
    if args.compare:
        return args
    args.protocol = list(dict.fromkeys(args.protocol or ["dptn"]))
    protocols = [PROTOCOLS[name] for name in args.protocol if name in PROTOCOLS]
    by_default = [metric for metric in DEFAULT if any(protocol.has(metric) for protocol in protocols)]
    args.metrics = [*(args.metrics or by_default), *(MASKED if args.calculate_mask else [])]
    fill_in_shared_defaults(args)
    check(parser, args)
    args.metrics = [name for name in METRICS if name in args.metrics]
    return args


def parse_shared(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """Parse the command line of an evaluation; a parser error if --compare, --published, --gt_path, --distorated_path
    and --baseline do not fit together."""
    args = parser.parse_args(argv)
    if args.compare:
        given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
        if others := sorted(given - {"compare", "published"}):
            parser.error(f"--compare evaluates nothing: leave out {', '.join(f'--{name}' for name in others)}")
        return args
    if args.published:
        parser.error("--published needs --compare")
    if not args.gt_path:
        parser.error("--gt_path is needed: the folder of the target photos")
    if bool(args.distorated_path) == bool(args.baseline):
        parser.error("give one of --distorated_path (the generated images) and --baseline")
    return args


def fill_in_shared_defaults(args: Namespace) -> None:
    """Set `paired_by` (what chose the pairs) and the defaults of flags that commands share."""
    args.name = args.name or args.baseline or Path(os.path.abspath(args.distorated_path)).name
    args.source_path = args.source_path or args.gt_path
    photos = Path(os.path.abspath(args.gt_path))
    own_pairs = photos.parent / find_dataset(args.dataset_mode).pairs_csv.format(phase=photos.name)
    if args.pairs and args.pairs != "none":
        args.pairs, args.paired_by = Path(args.pairs), "--pairs"
    elif not args.pairs and own_pairs.is_file():
        args.pairs, args.paired_by = own_pairs, "the data set's csv beside --gt_path"
    else:
        args.pairs, args.paired_by = None, "names"
    if not args.out:  # beside the folder of results; a baseline has none, so it takes test.py's default
        folder = Path(os.path.abspath(args.distorated_path)).parent if args.distorated_path else Path("results")
        args.out = folder / "metrics.jsonl"


def choose_batch_size(args: Namespace, device: torch.device, cpu_batch: int = CPU_BATCH) -> int:
    return args.batch_size or (cpu_batch if device.type == "cpu" else GPU_BATCH)


def check(parser: ArgumentParser, args: Namespace) -> None:
    """A parser error where options cannot be used together."""
    folders = (args.gt_path, args.distorated_path, args.against, args.fid_real_path, args.source_path)
    check_shared(parser, args, folders)
    for flag, names, known in (("--protocol", args.protocol, PROTOCOLS), ("--metrics", args.metrics, METRICS)):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"{flag}: '{unknown[0]}' is not one of {', '.join(known)}")
    for protocol in map(PROTOCOLS.get, args.protocol):
        if not any(protocol.has(metric) for metric in args.metrics):
            parser.error(f"--protocol {protocol.name} has none of --metrics; it has {', '.join(protocol.metrics)}")
        height, width = protocol.view(args.dataset_mode).size
        width += 2 * protocol.margin(args.dataset_mode)
        if "ssim" in args.metrics and protocol.has("ssim") and min(height, width) < WINDOW:
            images = f"the images under the {protocol.name} protocol have {height} x {width} (height x width)"
            parser.error(f"--metrics ssim has a window of {WINDOW} x {WINDOW} pixels, but {images}; leave it out")
    if set(args.metrics) & set(MASKED) and not args.annotations:
        parser.error("mask metrics need the keypoints of the targets: --annotations CSV")
    if not args.fid_real_path and ("fid" in args.metrics or args.baseline == "mean_image"):
        flag = "--metrics fid" if "fid" in args.metrics else "--baseline mean_image"
        parser.error(f"{flag} needs the training photos: --fid_real_path DIR")
    if args.baseline == "mean_image" and args.fid_real_path.suffix == ".npz":
        parser.error("--baseline mean_image needs the training photos themselves: --fid_real_path DIR")
    if args.against and not (args.bootstrap and args.pairs and not args.allow_missing):
        parser.error("--against compares pair by pair: it needs --bootstrap N and --pairs, and no --allow_missing")
    if args.per_image and not any(METRICS[name].per_image for name in args.metrics):
        parser.error(f"--per_image: {', '.join(args.metrics)} has no value for a single image; add other --metrics")


def check_shared(parser: ArgumentParser, args: Namespace, folders: Sequence[Path | None]) -> None:
    """A parser error where flags that commands share cannot be used together. `folders`: data and results."""
    if args.naming not in ("dptn", *OTHERS) and not ("{source}" in args.naming and "{target}" in args.naming):
        known = ", ".join(("dptn", *OTHERS))
        parser.error(f"--naming {args.naming}: neither one of {known} nor a PATTERN with {{source}} and {{target}}")
    if args.naming != "dptn" and not args.pairs:
        parser.error(f"--naming {args.naming} needs --pairs")
    if args.baseline and not args.pairs:
        parser.error(f"--baseline {args.baseline} needs --pairs")
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"--checkpoint {args.checkpoint}: no such file")
    for folder in filter(None, folders):
        if args.cache_dir.resolve().is_relative_to(folder.resolve()):
            parser.error(f"--cache_dir {args.cache_dir} lies in {folder}; keep it out of data and results")
        if args.html and args.html.resolve() == folder.resolve():
            parser.error(f"--html {args.html} holds data or results, whose page it would overwrite; name a new folder")
