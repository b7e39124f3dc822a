"""Flags of `python -m metrics.reid`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from metrics.options import (
    CSV,
    NAMES,
    add_cache_flag,
    add_image_flags,
    add_output_flags,
    add_speed_flags,
    fill_in_shared_defaults,
    find_shared_problem,
    parse_shared,
)  # fmt: skip
from metrics.reid_network import POOLS

ROLES = ("target", "source")
CPU_BATCH = 4  # as fast as 8, with 65 MB less


def make_parser() -> ArgumentParser:
    description = "Find the people of generated images among real photos (person re-identification)."
    parser = ArgumentParser(prog="python -m metrics.reid", description=description, allow_abbrev=False)

    add = add_image_flags(parser)
    add("--baseline", choices=("copy_source", "real"),
        help="instead of generated images, evaluate the source photos or the target photos (the ceiling), each without "
        "itself in the gallery")  # fmt: skip

    add = parser.add_argument_group("protocol (inferred: the authors did not publish it)").add_argument
    add("--identity", choices=("outfit", "item"),
        help="who is the same person on DeepFashion: photos of one outfit (default), or of one item of clothes in any "
        "outfit")  # fmt: skip
    add("--gallery", choices=("test", "pairs"), default="test",
        help="the real photos: all of --gt_path (test, the default), or those of the pairs")  # fmt: skip
    add("--without", **NAMES, default=[],
        help="target, source or both: leave these photos of a pair out of its query's gallery (default: none)",
    )  # fmt: skip
    add("--cameras", choices=("apart", "names"),
        help="apart: queries have camera 0, the gallery 1, so nothing is junk (default on DeepFashion); names: as the "
        "photos' names say, for a query the target's (default on Market-1501)")  # fmt: skip

    add = parser.add_argument_group("network").add_argument
    add("--reid_weights", type=Path, metavar="FILE", help="checkpoint of fast-reid's bagtricks_R50-ibn")
    add("--reid_pool", choices=list(POOLS), default="unpadded",
        help="the max pool of the network; fast-reid's was padded until August 2020 (default: unpadded)")  # fmt: skip
    add_cache_flag(add)

    add = add_output_flags(parser)
    add("--list", **CSV, help="only write the queries and the gallery, for fast-reid: role, path, person, camera")
    add_speed_flags(parser, CPU_BATCH)
    return parser


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Options of a command line, with all defaults filled in; exits with status 2 on a bad one."""
    parser = make_parser()
    args = parse_shared(parser, argv)
    if args.compare:
        return args
    fill_in_shared_defaults(args)
    if problem := find_problem(args):
        parser.error(problem)
    is_fashion = args.dataset_mode == "fashion"
    args.identity = (args.identity or "outfit") if is_fashion else "person"
    args.cameras = args.cameras or ("apart" if is_fashion else "names")
    args.without = [role for role in ROLES if role in args.without]
    return args


def find_problem(args: Namespace) -> str | None:
    """The first reason why the options cannot be used together, or None."""
    if problem := find_shared_problem(args, (args.gt_path, args.distorated_path, args.source_path)):
        return problem
    if args.identity and args.dataset_mode != "fashion":
        return f"--identity {args.identity} is for DeepFashion; names of other data sets tell only the person"
    if unknown := [name for name in args.without if name not in ROLES]:
        return f"--without: '{unknown[0]}' is not one of {', '.join(ROLES)}"
    if not args.pairs and (args.gallery == "pairs" or "source" in args.without):
        flag = "--gallery pairs" if args.gallery == "pairs" else "--without source"
        return f"{flag} needs --pairs"
    if args.list:
        if args.without or args.baseline:
            return "--list: fast-reid cannot leave photos out for one query; leave out --without and --baseline"
        return None
    if not args.reid_weights:
        return "--reid_weights is needed: the checkpoint of fast-reid's bagtricks_R50-ibn (docs/evaluation.md)"
    if not args.reid_weights.is_file():
        return f"--reid_weights {args.reid_weights}: no such file"
    return None


def switches(args: Namespace) -> dict[str, str]:
    """Everything that changes the scores of the same images and weights."""
    return {
        "identity": args.identity, "gallery": args.gallery, "without": ",".join(args.without) or "nothing",
        "cameras": args.cameras, "max pool": args.reid_pool,
    }  # fmt: skip
