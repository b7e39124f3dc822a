"""Flags of `python -m metrics.reid`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from data import find_dataset
from data.fashion_dataset import FashionDataset
from metrics import options
from metrics.options import CSV, NAMES
from metrics.reid_network import POOLS

ROLES = ("target", "source")
CPU_BATCH = 4  # as fast as 8, with 65 MB less


def make_parser() -> ArgumentParser:
    description = "Find the people of generated images among real photos (person re-identification)."
    parser = ArgumentParser(prog="python -m metrics.reid", description=description, allow_abbrev=False)

    add = options.add_image_flags(parser)
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
    options.add_cache_flag(add)

    add = options.add_output_flags(parser)
    add("--list", **CSV, help="only write the queries and the gallery, for fast-reid: role, path, person, camera")
    options.add_speed_flags(parser, CPU_BATCH)
    return parser


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """Options of a command line, with all defaults filled in; exits with status 2 on a bad one."""
    parser = make_parser()
    args = options.parse_shared(parser, argv)
    if args.compare:
        return args
    options.fill_in_shared_defaults(args)
    check(parser, args)
    is_fashion = issubclass(find_dataset(args.dataset_mode), FashionDataset)
    args.identity = (args.identity or "outfit") if is_fashion else "person"
    args.cameras = args.cameras or ("apart" if is_fashion else "names")
    args.without = [role for role in ROLES if role in args.without]
    return args


def check(parser: ArgumentParser, args: Namespace) -> None:
    """A parser error where options cannot be used together."""
    options.check_shared(parser, args, (args.gt_path, args.distorated_path, args.source_path))
    if args.identity and not issubclass(find_dataset(args.dataset_mode), FashionDataset):
        parser.error(f"--identity {args.identity} is for DeepFashion; names of other data sets tell only the person")
    if unknown := [name for name in args.without if name not in ROLES]:
        parser.error(f"--without: '{unknown[0]}' is not one of {', '.join(ROLES)}")
    if not args.pairs and (args.gallery == "pairs" or "source" in args.without):
        flag = "--gallery pairs" if args.gallery == "pairs" else "--without source"
        parser.error(f"{flag} needs --pairs")
    if args.list:
        if args.without or args.baseline:
            parser.error("--list: fast-reid cannot leave photos out for one query; leave out --without and --baseline")
    elif not args.reid_weights:
        parser.error("--reid_weights is needed: the checkpoint of fast-reid's bagtricks_R50-ibn (docs/evaluation.md)")
    elif not args.reid_weights.is_file():
        parser.error(f"--reid_weights {args.reid_weights}: no such file")


def switches(args: Namespace) -> dict[str, str]:
    """Everything that changes the scores of the same images and weights."""
    return {
        "identity": args.identity, "gallery": args.gallery, "without": ",".join(args.without) or "nothing",
        "cameras": args.cameras, "max pool": args.reid_pool,
    }  # fmt: skip
