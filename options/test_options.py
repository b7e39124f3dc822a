"""Flags of test.py."""

import json
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace, _AppendAction, _ArgumentGroup
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from options.base_options import BaseOptions
from util import distributed
from util.checkpoint import OPTIONS_FILE
from util.errors import UserError
from util.image import IMAGE_FORMATS


def add_which_epoch(group: _ArgumentGroup | ArgumentParser) -> None:
    group.add_argument("--which_epoch", default="latest", metavar="EPOCH",
                       help="load EPOCH_net_G.pth; EPOCH: latest, best, ema or a number")  # fmt: skip


class TestOptions(BaseOptions):
    __test__ = False  # pytest would collect it by its name
    is_train = False
    command = "test.py"
    description = "Generate an image for every pair of the test split with a trained generator."

    def add_flags(self, parser: ArgumentParser) -> None:
        super().add_flags(parser)
        test = parser.add_argument_group("testing")
        add_which_epoch(test)
        add = test.add_argument
        add("--results_dir", default="./results", metavar="DIR", help="folder for the images")
        add("--image_format", choices=list(IMAGE_FORMATS), default="jpg",
            help="jpg (quality 75) is the paper's protocol; png is lossless")  # fmt: skip
        add("--continue_test", action="store_true",
            help="resume a stopped run: keep the results that it finished with the same weights")  # fmt: skip

    def set_run_defaults(self, parser: ArgumentParser, argv: Sequence[str] | None, names: Sequence[str]) -> None:
        """A run folder says which network its weights fit. The released weights of the paper come without it."""
        chosen, _ = parser.parse_known_args(argv)
        run_file = Path(chosen.checkpoints_dir, chosen.name or "", OPTIONS_FILE)
        if not chosen.name or not run_file.is_file():
            return
        try:
            options = json.loads(run_file.read_text())["options"]
            for action in parser._actions:
                if action.dest in names and action.dest in options:
                    parser.set_defaults(**{action.dest: _checked(action, options[action.dest])})
        except (OSError, ValueError, KeyError, TypeError, ArgumentTypeError) as error:
            raise UserError(f"{run_file}: cannot be read ({error!r}); restore it, or remove it") from error

    def validate(self, opt: Namespace) -> None:
        super().validate(opt)
        if "," in (opt.gpu_ids or "") or distributed.processes() > 1:
            raise ValueError(f"{self.command} is one process on one GPU: give --gpu_ids one number, without torchrun")


def _checked(action: Action, value: Any) -> Any:
    """`value` of a run's options, if the command line could give it too; else ValueError or argparse's error."""
    if isinstance(value, list) and (action.nargs not in (None, 0, "?") or isinstance(action, _AppendAction)):
        return [_checked(action, item) for item in value]
    if (action.nargs == 0 and isinstance(value, bool)) or (value is None and action.default is None):
        return value  # a switch, which takes no text, or a flag that was not given
    if (action.type or str)(str(value)) != value or (action.choices and value not in action.choices):
        raise ValueError(f"{action.dest}: {value}")
    return value
