"""Flags of train.py."""

import argparse

from options.base_options import BaseOptions
from util.arguments import count, number, positive_int


class TrainOptions(BaseOptions):
    is_train = True
    description = "Train DPTN. Frequencies count samples (pairs), not batches."

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        super().add_flags(parser)
        train = parser.add_argument_group("training")
        train.add_argument("--serial_batches", action="store_true", help="csv order instead of a shuffled one")
        train.add_argument("--niter", type=count, default=100, metavar="N", help="epochs at the full learning rate")
        train.add_argument(
            "--niter_decay",
            type=count,
            default=100,
            metavar="N",
            help="epochs over which it then falls to zero",
        )
        train.add_argument("--lr", type=number(float, 0), default=2e-4, help="learning rate of the generator (Adam)")
        train.add_argument("--beta1", type=number(float, 0, 0.9999), default=0.5, help="Adam's first momentum")
        train.add_argument(
            "--load_pretrain", metavar="DIR",
            help="start from latest_net_G.pth and, if there, latest_net_D.pth in DIR, with fresh optimisers",
        )  # fmt: skip

        log = parser.add_argument_group("logs and saving")
        log.add_argument("--print_freq", type=positive_int, default=320, metavar="N", help="samples between log lines")
        log.add_argument(
            "--display_freq",
            type=positive_int,
            default=3200,
            metavar="N",
            help="samples between picture sheets",
        )
        log.add_argument(
            "--save_latest_freq",
            type=positive_int,
            default=10000,
            metavar="N",
            help="samples between saves of 'latest'",
        )
        log.add_argument(
            "--save_epoch_freq", type=positive_int, default=10, metavar="N",
            help="epochs between kept EPOCH_net_G.pth files",
        )  # fmt: skip
        log.add_argument(
            "--save_by_iter",
            action="store_true",
            help="keep TOTALSAMPLES_net_G.pth at each --save_latest_freq too",
        )

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if opt.niter + opt.niter_decay == 0:
            raise ValueError("--niter 0 --niter_decay 0: no epoch to train")
