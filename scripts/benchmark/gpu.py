"""Measure on one GPU all that no CPU can tell: bash scripts/benchmark/gpu.sh OUT_DIR

Needs torch 2.4 or newer, and neither a data set, weights nor the network. Prints as it goes. OUT_DIR gets report.md and
report.json, rewritten after each row, profile.txt, samples.png, and the generator of the training at the end. A part
that fails gives one line, and the next one runs; a part for which too little time is left is skipped with a line.

The parts (--parts) run in the order of --help. While the untimed ones run, processes prepare and compile the settings
of the grid in the background (on the CPU only in the part "prepare"); nothing else runs beside a timed part. A share of
the time is kept for the training.
"""

import os
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import torch

from scripts.benchmark import gpu_checks, gpu_grid, gpu_report, gpu_suspects, gpu_training
from scripts.benchmark.gpu_report import Context, Row
from scripts.benchmark.gpu_summary import suspects
from scripts.benchmark.measure import free_memory
from scripts.benchmark.networks import PUBLISHED_SIZES
from util.arguments import number
from util.device import describe_device, select_device
from util.errors import run_main

TRAINING_SHARE = 0.24  # of the whole time, kept for the last part


class Part(NamedTuple):
    function: Callable[[Context], Iterator[Row]]
    needs: float  # seconds; with less left it is skipped
    limit: float  # seconds; below 1 a share of the time that is left
    printed: bool = True  # each row; else they are in the report alone


PARTS = {
    "machine": Part(gpu_checks.describe_machine, 3, 30),
    "matmul": Part(gpu_checks.measure_matmul, 3, 30),
    "goldens": Part(gpu_checks.measure_goldens, 15, 90, printed=False),
    "people": Part(gpu_checks.render, 5, 60),
    "resume": Part(gpu_checks.check_resume, 20, 70),
    "torchrun": Part(gpu_checks.check_torchrun, 15, 60),
    "prepare": Part(gpu_grid.wait_for_workers, 0, 0.25, printed=False),
    "grid": Part(gpu_grid.measure_grid, 10, 0.56),
    "published": Part(gpu_grid.measure_published, 5, 80),  # enough where no process has prepared it
    "profile": Part(gpu_grid.report_profiles, 0, 10, printed=False),
    "suspects": Part(gpu_suspects.measure_suspects, 10, 40, printed=False),  # the table at the end prints its rows
    "test.py": Part(gpu_checks.measure_test, 15, 40),
    "training": Part(gpu_training.measure_training, 60, 0.99),
}
BESIDE_WORKERS = ("goldens", "people", "resume", "torchrun", "prepare")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT_DIR", help="folder of the report; made if it is missing")
    add("--minutes", type=number(float, 0.1), default=8.0, metavar="M", help="time for everything")
    add("--parts", choices=list(PARTS), nargs="+", default=list(PARTS), metavar="NAME",
        help=f"only these of {', '.join(PARTS)}")  # fmt: skip
    add("--sizes", choices=PUBLISHED_SIZES, nargs="+", metavar="HxW", help=f"only some of {', '.join(PUBLISHED_SIZES)}")
    add("--dataroot", type=Path, metavar="DIR",
        help="a data set of Market-1501's layout to train on and to test (default: people are rendered)")  # fmt: skip
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, with --quick")
    add("--quick", action="store_true", help="tiny networks and sizes, each step timed once")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    device = select_device("-1" if args.device == "cpu" else "0")
    print(f"torch {torch.__version__}, {describe_device(device)}; the report is in {args.out}", flush=True)
    sizes = args.sizes or (["128x64"] if args.quick else PUBLISHED_SIZES)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{scratch}/cache"
        os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "1"  # torch 2.4 does not keep compiled graphs by default
        context = Context(device, args.quick, args.out.resolve(), Path(scratch), sizes, end)
        context.people = args.dataroot and args.dataroot.resolve()
        (context.out / "profile.txt").unlink(missing_ok=True)
        needed = PARTS["training"].needs + 5
        for_training = max(TRAINING_SHARE * 60 * args.minutes, needed if 60 * args.minutes > 3 * needed else 0)
        run_parts(context, args.parts, for_training)
        print(f"\n{gpu_report.markdown_table(suspects(context))}")
    print(f"\n{args.out / 'report.md'}: finished in {60 * args.minutes - (end - time.monotonic()):.0f} s")


def run_parts(context: Context, names: list[str], for_training: float) -> None:
    """Run the parts. All but the last one leave `for_training` seconds to the training."""
    started = False
    try:
        for name in [name for name in PARTS if name in names]:
            beside = ("prepare",) if context.device.type == "cpu" else BESIDE_WORKERS  # a rehearsal saves memory
            if name in beside and "prepare" in names and not started:
                started = True
                gpu_grid.start_workers(context, names)
            run_part(context, name, PARTS[name], for_training if "training" in names and name != "training" else 0.0)
    finally:
        gpu_grid.end_workers(context, list(context.workers))


def run_part(context: Context, name: str, part: Part, kept: float) -> None:
    """Run one part within its time; whatever happens, the report has its rows and the next part can run.

    `kept`: seconds at the end of the whole time that it does not get.
    """
    start = time.monotonic()
    left = context.end - start - kept
    report = context.parts[name] = gpu_report.PartReport()
    context.current = name
    print(f"\n== {name} ({left:.0f} s left)", flush=True)
    try:
        if left < part.needs:
            context.note(f"skipped: {left:.0f} s are left, it needs {part.needs:.0f}")
            return
        limit = min(left, part.limit * left if part.limit < 1 else part.limit)
        context.part_end = start + limit
        with gpu_report.time_limit(limit + 3):  # parts that watch the time themselves end before
            for row in part.function(context):
                report.rows.append(row)
                report.seconds = time.monotonic() - start
                if part.printed:
                    gpu_report.print_row(row)
                context.write(suspects(context))
    except (Exception, gpu_report.PartTimeout) as error:
        report.traceback = traceback.format_exc()
        context.note(f"failed: {gpu_report.describe_error(error)}")
    finally:
        report.seconds = time.monotonic() - start
        if not part.printed:
            print(f"  {len(report.rows)} rows in the report")
        with suppress(RuntimeError):  # an error of the last part
            free_memory(context.device)
        context.write(suspects(context))


if __name__ == "__main__":
    run_main(main)
