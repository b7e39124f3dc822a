"""Flags of scripts/studio.py."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.estimators import ESTIMATORS
from options.test_options import TestOptions, add_which_epoch
from util.arguments import number

DESCRIPTION = """A page on which you drag the joints of a pose, and the generated image follows.

    studio.py                                                  the network of pretrained/rendered_market
    studio.py --name DPTN_fashion --dataset_mode fashion       a run of your own, or the authors' weights

It needs starlette and uvicorn (pip install -r requirements-studio.txt), and no connection. Photos stay in memory.
"""
PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
DEFAULT_RUN = "rendered_market"


class StudioOptions(TestOptions):
    command = "scripts/studio.py"
    description = DESCRIPTION

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        run, _ = self.add_network_flags(parser)
        add_which_epoch(run)
        parser.set_defaults(batchSize=1)  # the page generates one image at a time
        add = parser.add_argument_group("page").add_argument
        add("--estimator", choices=ESTIMATORS, help="finds the pose in photos; default: joints are placed by hand")
        add("--estimator_weights", metavar="FILE", help="file for keypointrcnn instead of the download")
        add("--port", type=number(int, 0, 65535), default=8000, help="0: any free one")
        host = "listen on this address instead of the loopback; a token in the page's address is then needed"
        add("--host", metavar="ADDRESS", help=host)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Without --name, the run is rendered_market."""
        return super().parse([f"--name={DEFAULT_RUN}", *(sys.argv[1:] if argv is None else argv)])

    def set_run_defaults(
        self, parser: argparse.ArgumentParser, argv: Sequence[str] | None, names: Sequence[str]
    ) -> None:
        """A run that is not below --checkpoints_dir may be one of pretrained/."""
        chosen, _ = parser.parse_known_args(argv)
        if (PRETRAINED / chosen.name).is_dir() and not Path(chosen.checkpoints_dir, chosen.name).is_dir():
            parser.set_defaults(checkpoints_dir=str(PRETRAINED))
        super().set_run_defaults(parser, argv, names)
        parser.set_defaults(name=DEFAULT_RUN)  # what --help shows

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if opt.estimator_weights and not opt.estimator:
            raise ValueError("--estimator_weights needs --estimator")
        if not opt.num_TTBs:
            raise ValueError("--num_TTBs 0: the page needs a network with Texture Transfer Blocks")
