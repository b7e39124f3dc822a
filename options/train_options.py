"""Flags of train.py, and which of them a resumed run may change."""

import json
import shlex
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metrics.validation import VAL_METRICS
from options.base_options import BaseOptions
from util import distributed
from util.arguments import count, number, positive_int
from util.checkpoint import STATE_FILE, load_state, refuse_existing_run
from util.errors import UserError

# Where a run is stored, on which device it runs and for how long: never taken from its checkpoint.
PER_LAUNCH_OPTIONS = ("name", "checkpoints_dir", "gpu_ids", "max_minutes")
# What a resumed run may change: paths, logging, speed, and the number of epochs. All else comes from the checkpoint.
RESUME_MAY_CHANGE = {
    *PER_LAUNCH_OPTIONS, "accumulate", "cache_images", "channels_last", "compile", "compile_mode", "continue_train",
    "cuda_graph", "dataroot", "display_env", "display_freq", "display_id", "display_port", "display_server",
    "nThreads", "niter", "niter_decay", "precision", "print_freq", "save_by_iter",
    "save_epoch_freq", "save_latest_freq", "tf_log",
}  # fmt: skip


class TrainOptions(BaseOptions):
    is_train = True
    resuming = False
    description = "Train DPTN. Frequencies count samples (pairs), not batches; --save_epoch_freq counts epochs."

    def add_flags(self, parser: ArgumentParser) -> None:
        super().add_flags(parser)
        add = parser.add_argument_group("training").add_argument
        add("--serial_batches", action="store_true", help="csv order instead of a shuffled one")
        add("--niter", type=count, default=100, metavar="N", help="epochs at the full learning rate")
        add("--niter_decay", type=count, default=100, metavar="N", help="epochs over which it then falls to zero")
        add("--max_minutes", type=number(float, 0), metavar="M",
            help="stop after M minutes and save, as on Ctrl-C; counts for this launch only")  # fmt: skip
        add("--lr", type=number(float, 0), default=2e-4, help="learning rate of the generator (Adam)")
        add("--beta1", type=number(float, 0, 0.9999), default=0.5, help="beta1 of Adam, its momentum")
        add("--ema", type=number(float, 0, 0.999999), default=0.0, metavar="DECAY",
            help="exponential moving average (EMA) of the generator's weights, in ema_net_G.pth; 0.999 averages over "
            "about 1000 steps; 0: off")  # fmt: skip
        add("--load_pretrain", metavar="DIR",
            help="start from latest_net_G.pth and, if there, latest_net_D.pth in DIR, with new optimizers")  # fmt: skip
        add("--continue_train", action="store_true",
            help="resume run --name exactly from its last checkpoint, with the options stored there")  # fmt: skip
        add("--accumulate", type=positive_int, default=1, metavar="K",
            help="gradient accumulation over K micro-batches, for small GPUs; same gradients")  # fmt: skip
        add("--cuda_graph", action=BooleanOptionalAction, default=False,
            help="replay the training step as one recorded CUDA graph: for small images and batches, in one process",
        )  # fmt: skip
        add("--deterministic", action=BooleanOptionalAction, default=False,
            help="only kernels that repeat their results bit for bit: exact resume on CUDA; slower")  # fmt: skip
        add("--val_pairs", type=count, default=0, metavar="N",
            help="hold out whole identities, with at least N pairs in all, for validation, which selects "
            "best_net_G.pth")  # fmt: skip
        add("--val_metric", choices=list(VAL_METRICS), default="ssim",
            help="metric that selects best_net_G.pth (ssim: the evaluation's ssim_256); lpips and fid need weights of "
            "other networks")  # fmt: skip
        add("--alexnet_weights", default="imagenet", metavar="W",
            help="--val_metric lpips: imagenet (torchvision's) or a file")  # fmt: skip
        add("--inception_weights", default="imagenet", metavar="W",
            help="--val_metric fid: imagenet (torchvision's, as in --protocol dptn) or a file")  # fmt: skip

        add = parser.add_argument_group("logs and saving").add_argument
        add("--print_freq", type=positive_int, default=800, metavar="N", help="samples between log lines")
        add("--display_freq", type=positive_int, default=3200, metavar="N",
            help="samples between sheets of example images")  # fmt: skip
        add("--save_latest_freq", type=positive_int, default=4000, metavar="N", help="samples between 'latest' saves")
        add("--save_epoch_freq", type=positive_int, default=1, metavar="N",
            help="epochs between kept EPOCH_net_G.pth and _net_D.pth (40 MB)")  # fmt: skip
        add("--save_by_iter", action=BooleanOptionalAction, default=False,
            help="keep TOTALSAMPLES_net_G.pth and _net_D.pth at each --save_latest_freq too; Market: on, "
                 "which takes 200 GB in the 200 epochs of the paper")  # fmt: skip
        add("--tf_log", action=BooleanOptionalAction, default=False,
            help="TensorBoard scalars in the run folder's tf_log")  # fmt: skip
        add("--display_id", type=count, default=0, metavar="N", help="visdom: window number, 0 = off")
        add("--display_server", default="http://localhost", metavar="URL", help="visdom: server")
        add("--display_port", type=positive_int, default=8097, metavar="N", help="visdom: port")
        add("--display_env", default="main", metavar="NAME", help="visdom: environment")

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """Options of a new run; with --continue_train those of the checkpoint.

        Raises UserError where a new run would overwrite an old one, or there is no run to resume.
        """
        opt = super().parse(argv)
        run_dir = Path(opt.checkpoints_dir) / opt.name
        if opt.continue_train:
            return self.resume(load_state(run_dir / STATE_FILE), opt, argv)
        refuse_existing_run(run_dir)
        return opt

    def resume(self, state: dict[str, Any], opt: Namespace, argv: Sequence[str] | None) -> Namespace:
        """Options of a resumed run: those in its training `state`, changed only where RESUME_MAY_CHANGE allows it.

        `opt` is the command line parsed without the checkpoint: it knows where the run is stored now. Raises UserError
        naming both values where the command line asks for another value than the checkpoint's.
        """
        stored = state["options"]
        parser = self.parser([f"--model={stored['model']}", f"--dataset_mode={stored['dataset_mode']}"])
        unset = object()  # argparse sets no default where the namespace has a value: what stays unset was not given
        blank = Namespace(**{action.dest: unset for action in parser._actions})
        given = {name: value for name, value in vars(parser.parse_args(argv, blank)).items() if value is not unset}
        conflicts = [
            f"\n  --{name}: {value} on the command line, {stored[name]} in the checkpoint"
            for name, value in given.items()
            if name in stored.keys() - RESUME_MAY_CHANGE
            and value != stored[name]
            and not moved_file(name, value, stored)
        ]
        if conflicts:
            untrained = state["progress"]["total"] == 0
            name = "the same --name, since no step was made" if untrained else "another --name"
            raise UserError(
                "--continue_train resumes with the checkpoint's options. Leave these flags out, or start a new run "
                f"with {name}:{''.join(conflicts)}"
            )
        parser.set_defaults(**{**stored, **{name: getattr(opt, name) for name in PER_LAUNCH_OPTIONS}})
        self.resuming = True
        return self.finish(parser, parser.parse_args(argv))

    def finish(self, parser: ArgumentParser, opt: Namespace) -> Namespace:
        opt = super().finish(parser, opt)
        for name, value in vars(opt).items():
            try:
                json.dumps(value)
            except TypeError as error:  # a flag of a subclass
                raise UserError(f"--{name}: {value!r} cannot be stored; its type must be one of JSON's") from error
        return opt

    @staticmethod
    def resume_command(opt: Namespace) -> str:
        """The command that resumes a run, to be typed on each of its machines."""
        flags = [sys.argv[0], f"--name={opt.name}", f"--checkpoints_dir={opt.checkpoints_dir}", "--continue_train"]
        if opt.gpu_ids is not None:
            flags.append(f"--gpu_ids={opt.gpu_ids}")
        total, local = distributed.processes(), distributed.local_processes()
        launcher = "python" if total == 1 else f"torchrun --nproc_per_node={local}"
        if total > local:
            launcher += f" --nnodes={total // local} (and the --rdzv flags as before)"
        return f"{launcher} {shlex.join(flags)}"

    def validate(self, opt: Namespace) -> None:
        if opt.continue_train and not self.resuming:
            return  # network sizes come from the checkpoint
        super().validate(opt)
        if opt.niter + opt.niter_decay == 0:
            raise ValueError("--niter 0 --niter_decay 0: no epoch to train")
        if opt.val_metric != "ssim" and not opt.val_pairs:
            raise ValueError(f"--val_metric {opt.val_metric} needs --val_pairs N, the pairs on which it is measured")
        if opt.cuda_graph and opt.compile_mode != "default":
            raise ValueError(
                f"--cuda_graph records the whole step, --compile_mode {opt.compile_mode} parts of it: give "
                "--no-cuda_graph or --compile_mode default"
            )


def moved_file(name: str, value: Any, stored: dict[str, Any]) -> bool:
    """Whether an option names a file of weights, which may have moved: both values are paths."""
    files = ("vgg_weights", "alexnet_weights", "inception_weights")
    return name in files and not {value, stored[name]} & {"imagenet", "random"}
