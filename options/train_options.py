"""Flags of train.py, and which of them a resumed run may change."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from options.base_options import BaseOptions
from util import distributed
from util.arguments import count, number, positive_int
from util.checkpoint import STATE_FILE, load_state, refuse_existing_run
from util.errors import UserError

# Where a run is stored and runs, and for how long: never taken from its checkpoint.
PER_LAUNCH_OPTIONS = ("name", "checkpoints_dir", "gpu_ids", "max_minutes")
# Options that do not affect what is trained. All others come from the checkpoint and cannot be changed.
RESUME_MAY_CHANGE = {
    *PER_LAUNCH_OPTIONS, "accumulate", "cache_images", "compile", "continue_train", "dataroot", "display_env",
    "display_freq", "display_id", "display_port", "display_server", "nThreads", "niter", "niter_decay", "print_freq",
    "save_by_iter", "save_epoch_freq", "save_latest_freq", "tf_log",
}  # fmt: skip


class TrainOptions(BaseOptions):
    is_train = True
    resuming = False
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
        train.add_argument(
            "--max_minutes", type=number(float, 0), metavar="M",
            help="stop after M minutes and save, as on Ctrl-C; not stored in the checkpoint",
        )  # fmt: skip
        train.add_argument("--lr", type=number(float, 0), default=2e-4, help="learning rate of the generator (Adam)")
        train.add_argument("--beta1", type=number(float, 0, 0.9999), default=0.5, help="Adam's first momentum")
        train.add_argument(
            "--load_pretrain", metavar="DIR",
            help="start from latest_net_G.pth and, if there, latest_net_D.pth in DIR, with new optimizers",
        )  # fmt: skip

        train.add_argument(
            "--continue_train",
            action="store_true",
            help="resume the run --name from its last checkpoint (bit-exact), with all its options but --gpu_ids",
        )
        train.add_argument(
            "--accumulate",
            type=positive_int,
            default=1,
            metavar="K",
            help="gradient accumulation over K micro-batches, for small GPUs; same gradients",
        )
        train.add_argument(
            "--val_pairs",
            type=count,
            default=0,
            metavar="N",
            help="hold out training identities until N validation pairs are reached; selects best_net_G.pth",
        )

        log = parser.add_argument_group("logs and saving")
        log.add_argument("--print_freq", type=positive_int, default=320, metavar="N", help="samples between log lines")
        log.add_argument(
            "--display_freq",
            type=positive_int,
            default=3200,
            metavar="N",
            help="samples between sheets of example images",
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
            action=argparse.BooleanOptionalAction,
            default=False,
            help="keep TOTALSAMPLES_net_G.pth at each --save_latest_freq too",
        )

        log.add_argument(
            "--tf_log",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="TensorBoard scalars in the run folder's tf_log",
        )
        log.add_argument("--display_id", type=count, default=0, metavar="N", help="visdom: window number, 0 = off")
        log.add_argument("--display_server", default="http://localhost", metavar="URL", help="visdom: server")
        log.add_argument("--display_port", type=positive_int, default=8097, metavar="N", help="visdom: port")
        log.add_argument("--display_env", default="main", metavar="NAME", help="visdom: environment")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Options of a new run, or with --continue_train those of the checkpoint, whose content is then `state`.

        Raises UserError where a new run would overwrite an old one, or where there is none to resume.
        """
        opt = super().parse(argv)
        run_dir = Path(opt.checkpoints_dir) / opt.name
        if not opt.continue_train:
            refuse_existing_run(run_dir)
            return opt
        self.state = load_state(run_dir / STATE_FILE)
        return self.resume(self.state["options"], opt, argv)

    def resume(
        self, stored: dict[str, Any], opt: argparse.Namespace, argv: Sequence[str] | None = None
    ) -> argparse.Namespace:
        """Options of a resumed run: those `stored` in its checkpoint, changed only where RESUME_MAY_CHANGE allows it.

        `opt` is the command line parsed without the checkpoint: it knows where the run is stored now.

        Raises UserError naming both values where the command line wants something else.
        """
        shape = [f"--{name}={stored[name]}" for name in ("model", "dataset_mode")]
        parser = self.parser(shape)
        given = explicitly_given(parser, argv)
        conflicts = [
            f"--{name}: {value} on the command line, {stored[name]} in the checkpoint"
            for name, value in given.items()
            if name not in RESUME_MAY_CHANGE
            and name in stored
            and value != stored[name]
            and not moved_file(name, value, stored)
        ]
        if conflicts:
            listed = "\n  ".join(conflicts)
            raise UserError(
                "--continue_train resumes with the checkpoint's options. Leave these flags out, or start a new run "
                f"with another --name:\n  {listed}"
            )
        parser.set_defaults(**{**stored, **{name: getattr(opt, name) for name in PER_LAUNCH_OPTIONS}})
        self.resuming = True
        return self.finish(parser, parser.parse_args(argv))

    @staticmethod
    def resume_command(opt: argparse.Namespace) -> str:
        """The command that resumes a run, to be typed on each of its machines."""
        flags = [sys.argv[0], f"--name={opt.name}", f"--checkpoints_dir={opt.checkpoints_dir}", "--continue_train"]
        if opt.gpu_ids is not None:
            flags.append(f"--gpu_ids={opt.gpu_ids}")
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        machines = distributed.processes() // local
        launcher = "python" if distributed.processes() == 1 else f"torchrun --nproc_per_node={local}"
        if machines > 1:
            launcher += f" --nnodes={machines} (and the --rdzv flags as before)"
        return f"{launcher} {shlex.join(flags)}"

    def validate(self, opt: argparse.Namespace) -> None:
        if opt.continue_train and not self.resuming:
            return  # network sizes come from the checkpoint
        super().validate(opt)
        if opt.niter + opt.niter_decay == 0:
            raise ValueError("--niter 0 --niter_decay 0: no epoch to train")


def explicitly_given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """The options that a command line sets itself, without defaults."""
    unset = object()
    blank = argparse.Namespace(**{action.dest: unset for action in parser._actions})
    return {name: value for name, value in vars(parser.parse_args(argv, blank)).items() if value is not unset}


def moved_file(name: str, value: Any, stored: dict[str, Any]) -> bool:
    """Whether an option names the same kind of file, moved to another path."""
    return name == "vgg_weights" and not {value, stored[name]} & {"imagenet", "random"}
