"""Write the statistics of real photos that FID compares with, as a file that people can publish.

    python -m metrics.statistics --fid_real_path=./dataset/fashion/train --out=fashion_train.npz
    python -m metrics.metrics --fid_real_path=fashion_train.npz ...

The file holds n, mean and covariance of the features, and all that they depend on: the protocol and its switches, the
hash of the network's weights, the precision. An evaluation with anything else refuses it.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from data import dataset_names
from metrics.evaluation import EvaluationSetup, load_networks, real_settings, real_statistics
from metrics.fid import write_statistics
from metrics.options import FOLDER, add_cache_flag, add_inception_flags, add_speed_flags, choose_batch_size
from metrics.pairing import Problems, photos_below
from metrics.protocols import PROTOCOLS
from metrics.stream import PairDataset, PhotoDataset
from util.device import select_device, use_precision
from util.errors import UserError, run_main
from util.files import check_writable


def main() -> None:
    args = parse()
    check_writable(args.out)
    device, protocol = select_device(args.gpu_ids), PROTOCOLS[args.protocol]
    use_precision(args.precision, device)
    no_pairs = PairDataset([], args.fid_real_path, args.dataset_mode, [protocol], ["fid"], None, keep_images=True)
    photos = PhotoDataset(
        args.fid_real_path, photos_below(args.fid_real_path, "--fid_real_path"), protocol.view(args.dataset_mode)
    )
    batch_size = choose_batch_size(args, device)
    setup = EvaluationSetup(no_pairs, photos, None, args.cache_dir, device, args.precision, batch_size, args.nThreads)
    sources = {"torchvision": args.inception_weights, "pytorch-fid": args.fid_inception_weights}
    networks = load_networks(setup, sources, skip_unavailable=False)
    statistics = real_statistics(setup, networks, protocol, Problems(allowed=False, advice=""))
    settings = {"protocol": protocol.name, "data_set": args.dataset_mode, **real_settings(setup, networks, protocol)}
    write_statistics(args.out, statistics, settings)
    print(f"{args.out}: statistics of {statistics.n:,} photos for FID under the {protocol.name} protocol")


def make_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m metrics.statistics", description="Statistics of real photos for FID.", allow_abbrev=False
    )
    with_fid = [name for name, protocol in PROTOCOLS.items() if protocol.has("fid")]
    add = parser.add_argument_group("statistics").add_argument
    add("--fid_real_path", **FOLDER, required=True, help="the real photos: the training folder")
    add("--out", type=Path, metavar="FILE.npz", required=True, help="the file to write")
    add("--dataset_mode", default="fashion", choices=dataset_names(), help="data set, which knows the photos' size")
    add("--protocol", default="dptn", choices=with_fid, help="the protocol that they are for")
    add_cache_flag(add)
    add_inception_flags(add)
    add_speed_flags(parser)
    return parser


def parse() -> Namespace:
    args = make_parser().parse_args()
    if args.out.suffix != ".npz":
        raise UserError(f"--out {args.out}: its name must end in .npz")
    return args


if __name__ == "__main__":
    run_main(main)
