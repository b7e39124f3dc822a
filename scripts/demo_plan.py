"""Choose the width and the schedule of the demo's training from a few measured steps on this machine.

python scripts/demo_plan.py --name demo --dataroot dataset/demo_people --minutes 10

Prints flags for train.py on standard output, and the reasons on standard error. The learning rate must fall to zero
within the time, and a wide network needs more pairs than a slow machine can show it.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.loaders import create_train_loaders
from models import create_model
from options.train_options import TrainOptions
from scripts.benchmark.measure import median_seconds
from util.arguments import number
from util.checkpoint import STATE_FILE, load_state
from util.device import fast_bf16, select_device
from util.errors import run_main

# Without VGG19 (lambda_content, lambda_style) training is faster and needs no download. docs/reproduction.md compares
# learning rates and widths.
BATCH_SIZE = 4
FLAGS = [
    "--dataset_mode=market", f"--batchSize={BATCH_SIZE}", "--lr=1e-3", "--dis_layers=3", "--lambda_rec=10",
    "--lambda_g=0.05", "--lambda_content=0", "--lambda_style=0",
]  # fmt: skip
PAIRS_FOR_WIDTH = {16: 0, 32: 2500, 64: 6000}  # --ngf, and how many pairs make that width worth its time
TIMED_STEPS = 8
TRAINING_SHARE = 0.85  # of the time: sheets, checkpoints and a machine that gets slower take the rest
FEWEST_EPOCHS = 3  # so that the learning rate has steps to fall in
AVERAGED_SHARE = 1 / 7  # of the steps, which --ema averages


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--name", required=True, help="name of the run; an existing one is resumed, for longer")
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="the rendered people")
    parser.add_argument("--minutes", type=number(float, 0), required=True, metavar="M", help="time for training")
    args = parser.parse_args()
    seconds = TRAINING_SHARE * 60 * args.minutes
    state_file = Path("checkpoints", args.name, STATE_FILE)
    if state_file.exists():
        flags = plan_longer(load_state(state_file), seconds)
    else:
        flags = plan_new([f"--dataroot={args.dataroot}", *FLAGS], seconds)
    print(*flags)


def plan_new(flags: list[str], seconds: float) -> list[str]:
    """Flags of a new run that ends its schedule in `seconds`, at the greatest width that sees enough pairs."""
    precision = "bf16" if fast_bf16(select_device(None)) else "fp32"
    flags = [*flags, f"--precision={precision}"]
    width, pairs = choose_width(lambda width: seconds / seconds_per_pair([*flags, f"--ngf={width}"]))
    opt = TrainOptions().parse(["--name=demo_plan", *flags])  # a name is required; nothing is stored under it
    available = len(create_train_loaders(opt, select_device("-1"))[0].dataset)
    epochs, size = schedule(pairs, available)
    print(f"time for {pairs:,} pairs at width {width}: {epochs} epochs of {size} pairs, {precision}", file=sys.stderr)
    return [
        *flags, f"--ngf={width}", f"--max_dataset_size={size}", *falling_rate(0, epochs),
        f"--ema={ema_decay(epochs * size / BATCH_SIZE):.4f}",
    ]  # fmt: skip


def choose_width(affordable_pairs: Callable[[int], float]) -> tuple[int, int]:
    """The greatest width whose `affordable_pairs` suffice, and their number.

    Measuring a width takes time, so it is left out where the next smaller width already sees too few pairs for it.
    """
    chosen = 0, 0
    for width, needed in PAIRS_FOR_WIDTH.items():
        if chosen[1] < needed or (pairs := int(affordable_pairs(width))) < needed:
            break
        chosen = width, pairs
    return chosen


def schedule(pairs: int, available: int) -> tuple[int, int]:
    """Epochs, and the pairs in each, that make up about `pairs`."""
    epochs = max(FEWEST_EPOCHS, round(pairs / available))
    return epochs, min(available, max(BATCH_SIZE, round(pairs / epochs)))


def falling_rate(done: int, epochs: int) -> list[str]:
    """The full learning rate for the first third of `epochs` after the `done` ones, then a line towards zero."""
    full = epochs // 3
    return [f"--niter={done + full}", f"--niter_decay={epochs - full}"]


def ema_decay(steps: float) -> float:
    """The decay of --ema with which the average covers the last AVERAGED_SHARE of a run of `steps`."""
    return max(0.5, 1 - 1 / (AVERAGED_SHARE * steps))


def plan_longer(state: dict[str, Any], seconds: float) -> list[str]:
    """Flags that resume a run and end its schedule after `seconds` more."""
    options = state["options"]
    own = [f"--{name}={options[name]}" for name in ("dataroot", "ngf", "precision")]
    flags = [*FLAGS, *own]
    epochs = max(1, round(seconds / seconds_per_pair(flags) / options["max_dataset_size"]))
    print(f"resuming for {epochs} more epochs of {options['max_dataset_size']} pairs", file=sys.stderr)
    return ["--continue_train", *falling_rate(state["progress"]["epoch"] - 1, epochs)]


def seconds_per_pair(flags: list[str]) -> float:
    """The median of TIMED_STEPS training steps after a first one, without the loading of photos."""
    opt = TrainOptions().parse(["--name=demo_plan", *flags, "--nThreads=0"])
    device = select_device(opt.gpu_ids)
    model = create_model(opt, device, is_train=True)
    model.set_input(next(iter(create_train_loaders(opt, device)[0])))

    def step() -> None:
        model.optimize_parameters()
        model.get_current_losses()  # waits for the device

    step()
    return median_seconds(step, TIMED_STEPS, device) / opt.batchSize


if __name__ == "__main__":
    run_main(main)
