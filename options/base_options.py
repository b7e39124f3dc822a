"""Flags that training and testing share, and how a command line is read.

The chosen model and data set add their own flags and defaults (`modify_commandline_options`). Reading is strict: no
abbreviations, no unknown flags, every value checked. Nothing here touches a device or writes a file.
"""

import argparse
import textwrap
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Sequence

from data import dataset_names, find_dataset
from models import find_model, model_names
from util.arguments import count, number, positive_int
from util.device import PRECISIONS

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


def add_batch_size(group: _ArgumentGroup) -> None:
    group.add_argument("--batchSize", type=positive_int, default=1, metavar="N",
        help="pairs in a batch; in training with several processes, their total")  # fmt: skip


class BaseOptions:
    """Parser of one command. A subclass sets `is_train` and `description`, and extends `add_flags` and `validate`."""

    is_train: bool
    description: str
    text: str  # after `parse`: all options, one a line, with a mark on those in `changed`
    changed: list[str]  # after `parse`: names of the options that differ from their defaults
    changed_text: str  # after `parse`: these options and their values, a paragraph for the console

    def add_flags(self, parser: ArgumentParser) -> None:
        run, data = self.add_network_flags(parser)
        run.add_argument("--seed", type=number(int, 0, 2**32), default=0, help="seed of all random numbers")
        add_batch_size(data)
        add = data.add_argument
        add("--nThreads", type=count, default=2, metavar="N", help="worker processes that decode photos")
        add("--cache_images", action=BooleanOptionalAction, default=False,
            help="cache decoded photos in memory that the workers share; prints how much it takes")  # fmt: skip
        add("--max_dataset_size", type=positive_int, metavar="N", help="use the first N pairs only")

    def add_network_flags(self, parser: ArgumentParser) -> tuple[_ArgumentGroup, _ArgumentGroup]:
        """Add what selects and runs a network; returns the groups 'run' and 'data' for more flags."""
        run = parser.add_argument_group("run")
        add = run.add_argument
        add("--name", help="name of the run: its folder below --checkpoints_dir")
        add("--model", default="DPTN", choices=model_names(), help="which model")
        add("--checkpoints_dir", default="./checkpoints", metavar="DIR", help="folder of all runs and their weights")
        add("--gpu_ids", "--gpu_id", metavar="ID",
            help="CUDA GPU, or under torchrun one for each process, such as 0,1; -1 for the CPU; default: CUDA if "
            "there is one, else Apple's MPS, else the CPU")  # fmt: skip

        data = parser.add_argument_group("data")
        add = data.add_argument
        add("--dataset_mode", default="fashion", choices=dataset_names(), help="which data set")
        add("--dataroot", metavar="DIR", help="folder with train/, test/ and the csv files")

        add = parser.add_argument_group("precision and speed").add_argument
        add("--precision", choices=list(PRECISIONS),
            help="tf32: matrix products of float32 with 10-bit fractions, CUDA only; bf16: autocast, losses stay in "
            "float32; default: tf32 on CUDA, as in the published training, else fp32")  # fmt: skip
        add("--channels_last", action=BooleanOptionalAction, default=None,
            help="memory format N,H,W,C; default: on the CPU, and on CUDA with --compile")  # fmt: skip
        add("--compile", action=BooleanOptionalAction, default=False,
            help="torch.compile; the first step is slow. A CPU needs a C++ compiler; the compiled code is cached in "
            "~/.cache/dptn_compiled")  # fmt: skip
        add("--compile_mode", choices=COMPILE_MODES, default="default",
            help="--compile on CUDA; reduce-overhead: CUDA graphs, for small batches and images; max-autotune: tries "
            "more kernels, which takes minutes")  # fmt: skip
        return run, data

    def parser(self, argv: Sequence[str] | None = None, from_run: bool = False) -> ArgumentParser:
        """The full parser for the model and data set that `argv` names.

        With `from_run`, commands that use an existing run take the options stored there as defaults
        (`set_run_defaults`).
        """
        parser = ArgumentParser(
            description=self.description, allow_abbrev=False, formatter_class=_Formatter, add_help=False
        )
        self.add_flags(parser)
        if from_run:
            self.set_run_defaults(parser, argv, ["model", "dataset_mode"])
        chosen, _ = parser.parse_known_args(argv)
        find_dataset(chosen.dataset_mode).modify_commandline_options(parser, self.is_train)
        if from_run:  # the data set has a default --name
            self.set_run_defaults(parser, argv, ["model"])
            chosen, _ = parser.parse_known_args(argv)
        common = {action.dest for action in parser._actions}
        find_model(chosen.model).modify_commandline_options(parser, self.is_train)
        if from_run:
            self.set_run_defaults(parser, argv, [a.dest for a in parser._actions if a.dest not in common])
        parser.add_argument("-h", "--help", action="help", help="show this list and exit")
        return parser

    def set_run_defaults(self, parser: ArgumentParser, argv: Sequence[str] | None, names: Sequence[str]) -> None:
        """Make the values stored with the run that `argv` names the defaults of the options `names`. For training this
        does nothing; commands that use an existing run override it."""

    def parse(self, argv: Sequence[str] | None = None) -> Namespace:
        """Options of a command line (default: this process's); exits with status 2 on a bad one.

        UserError where the files of the run do not allow it.
        """
        parser = self.parser(argv, from_run=True)
        return self.finish(parser, parser.parse_args(argv))

    def finish(self, parser: ArgumentParser, opt: Namespace) -> Namespace:
        """Check `opt` as a whole, and set `text`, `changed` and `changed_text`."""
        try:
            self.validate(opt)
        except ValueError as error:
            parser.error(str(error))
        plain = self.parser([f"--model={opt.model}", f"--dataset_mode={opt.dataset_mode}"])  # without a run's options
        options = dict(sorted(vars(opt).items()))
        defaults = {name: plain.get_default(name) for name in options}
        self.changed = [name for name, value in options.items() if value != defaults[name]]
        marks = {name: f"    [default: {defaults[name]}]" for name in self.changed}
        self.text = "\n".join(f"{name}: {value}{marks.get(name, '')}" for name, value in options.items())
        given = ", ".join(f"{name} {options[name]}" for name in self.changed)
        style = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
        self.changed_text = textwrap.fill(f"options: {given or 'all defaults'}", width=100, **style)
        return opt

    def validate(self, opt: Namespace) -> None:
        """Raise ValueError for flags that are each valid but do not fit together."""
        if not opt.name or opt.name in (".", "..") or "/" in opt.name or "\\" in opt.name:
            raise ValueError(f"--name '{opt.name}': must be the name of one folder")
        if opt.compile_mode != "default" and not opt.compile:
            raise ValueError(f"--compile_mode {opt.compile_mode} needs --compile; else give --compile_mode default")
        find_model(opt.model).validate_options(opt, find_dataset(opt.dataset_mode).network_size)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, but not those that are None, and keeps the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)
