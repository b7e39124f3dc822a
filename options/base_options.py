"""Flags that training and testing share, and how a command line is read.

The chosen model and data set add their own flags and defaults (`modify_commandline_options`). Reading is strict: no
abbreviations, no unknown flags, every value checked. Nothing here touches a device or writes a file.
"""

import argparse
from collections.abc import Sequence

from data import dataset_names, find_dataset
from models import find_model, model_names
from util.arguments import count, number, positive_int
from util.device import PRECISIONS

_Group = argparse._ArgumentGroup


class BaseOptions:
    """Parser of one command. `is_train` and `add_flags` are what a subclass changes."""

    is_train: bool
    description: str

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        run, data = self.add_network_flags(parser)
        run.add_argument("--seed", type=number(int, 0, 2**32), default=0, help="seed of all random numbers")
        data.add_argument("--nThreads", type=count, default=2, metavar="N", help="worker processes that decode photos")
        data.add_argument(
            "--cache_images", action=argparse.BooleanOptionalAction, default=False,
            help="cache decoded photos in memory that the workers share; prints how much it takes",
        )  # fmt: skip
        data.add_argument("--max_dataset_size", type=positive_int, metavar="N", help="use the first N pairs only")

    def add_network_flags(self, parser: argparse.ArgumentParser) -> tuple[_Group, _Group]:
        """Add what selects and runs a network; returns the groups 'run' and 'data' for more flags."""
        run = parser.add_argument_group("run")
        run.add_argument("--name", help="name of the run: its folder below --checkpoints_dir")
        run.add_argument("--model", default="DPTN", choices=model_names(), help="which model")
        run.add_argument(
            "--checkpoints_dir",
            default="./checkpoints",
            metavar="DIR",
            help="folder of all runs and their weights",
        )
        run.add_argument(
            "--gpu_ids", "--gpu_id", metavar="ID",
            help="CUDA GPU to use, -1 for the CPU; without it CUDA if there is one, else Apple's MPS, else the CPU",
        )  # fmt: skip

        data = parser.add_argument_group("data")
        data.add_argument("--dataset_mode", default="fashion", choices=dataset_names(), help="which data set")
        data.add_argument("--dataroot", metavar="DIR", help="folder with train/, test/ and the csv files")
        data.add_argument("--batchSize", type=positive_int, default=1, metavar="N", help="pairs in a batch")

        speed = parser.add_argument_group("precision and speed")
        speed.add_argument(
            "--precision",
            choices=list(PRECISIONS),
            default="fp32",
            help="bf16: autocast, losses stay in fp32",
        )
        speed.add_argument(
            "--channels_last", action=argparse.BooleanOptionalAction, default=None,
            help="memory format N,H,W,C, which is faster; default: everywhere but on MPS",
        )  # fmt: skip
        speed.add_argument(
            "--compile", action=argparse.BooleanOptionalAction, default=False,
            help="torch.compile; the first step is slow. A CPU needs a C++ compiler. Cached in ~/.cache/dptn_compiled",
        )  # fmt: skip
        return run, data

    def parser(self, argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
        """The full parser for the model and data set that `argv` names."""
        parser = argparse.ArgumentParser(
            description=self.description, allow_abbrev=False, formatter_class=_Formatter, add_help=False
        )
        self.add_flags(parser)
        chosen, _ = parser.parse_known_args(argv)
        parser.add_argument("-h", "--help", action="help", help="show this list and exit")
        find_model(chosen.model).modify_commandline_options(parser, self.is_train)
        find_dataset(chosen.dataset_mode).modify_commandline_options(parser)
        return parser

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Options of a command line (default: this process's); exits with status 2 on a bad one."""
        parser = self.parser(argv)
        return self.finish(parser, parser.parse_args(argv))

    def finish(self, parser: argparse.ArgumentParser, opt: argparse.Namespace) -> argparse.Namespace:
        """Check `opt` as a whole; `text` and `changed` describe it afterwards."""
        try:
            self.validate(opt)
        except ValueError as error:
            parser.error(str(error))
        defaults = self.parser([f"--model={opt.model}", f"--dataset_mode={opt.dataset_mode}"])
        self.text, self.changed = describe(opt, defaults)
        return opt

    def validate(self, opt: argparse.Namespace) -> None:
        """Raise ValueError for flags that are each valid but do not fit together."""
        if not opt.name or opt.name in (".", "..") or "/" in opt.name or "\\" in opt.name:
            raise ValueError(f"--name '{opt.name}': must be the name of one folder")
        find_model(opt.model).validate_options(opt, find_dataset(opt.dataset_mode).network_size)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, but not those that are None, and keeps the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def describe(opt: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[str, list[str]]:
    """One line for each option, with a mark where it differs from its default; and the names of those that do."""
    lines, changed = [], []
    for name, value in sorted(vars(opt).items()):
        default = parser.get_default(name)
        if value != default:
            changed.append(name)
        lines.append(f"{name}: {value}" + (f"    [default: {default}]" if value != default else ""))
    return "\n".join(lines), changed
