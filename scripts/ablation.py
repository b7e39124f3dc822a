"""Trains variants of the network with several seeds, most without one part of the method, and compares their scores.

    python -m data.synthetic --identities 120 --out dataset/ablation_people       # rendered people
    python scripts/ablation.py                                                # every setting that needs no VGG19
    python scripts/ablation.py --settings full no_ptm --seeds 0 1 2 3 4 -- --ngf=32 --niter=5

Flags after "--" go to train.py, after the small default training (TRAINING in this file) and before a setting's
own flags. Each run is one train.py, one test.py and one evaluation; what is finished is not repeated, and what was
stopped resumes. The table is OUT/ablation.csv, the page OUT/index.html; both are written again after each run.

A metric's value is the mean over the test pairs; "spread" is the standard deviation over seeds. "difference" is
the value minus the first setting's on the same pair with the same seed, averaged over pairs; its spread, too, is over
seeds, because the pairs of one run are not independent. "pairs better" is the share of pairs on which the setting
beats the first one.
"""

import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from dominate import document, tags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names, find_dataset
from metrics.evaluation import METRICS
from util.arguments import count, positive_int
from util.checkpoint import STATE_FILE
from util.errors import UserError, run_main
from util.files import write_text
from util.html import add_table, new_page, write_page
from util.results import RUN_FILE

ROOT = Path(__file__).resolve().parent.parent
COMPARED_METRICS = ("l1", "psnr", "ssim_256", "mask_ssim")  # they need no weights of other networks
PROTOCOL = "standard"
PAIR = ["source", "target"]
HEADINGS = ("setting", "seeds", "mean", "difference", "pairs better")
TRAINING = [
    "--ngf=16", "--ndf=16", "--dis_layers=3", "--batchSize=4", "--niter=1", "--niter_decay=2", "--nThreads=0",
    "--lambda_rec=10", "--lambda_g=0.2", "--lambda_content=0", "--lambda_style=0",
]  # fmt: skip


class Setting(NamedTuple):
    title: str
    train: tuple[str, ...] = ()  # flags of train.py
    test: tuple[str, ...] = ()  # flags of test.py
    needs_vgg: bool = False


SETTINGS = {
    "full": Setting("DPTN"),
    "no_ptm": Setting("without PTM", ("--num_CABs=0", "--num_TTBs=0")),
    "cabs_only": Setting("CABs only", ("--num_TTBs=0",)),
    "values_f_ss": Setting("values from f_ss", ("--ptm_values=f_ss",)),
    "one_head": Setting("one attention head", ("--nhead=1",)),
    # half the weight for the L1 loss, which then weighs as much beside the adversarial loss as with the dual task
    "no_dual_task": Setting("without the dual task", ("--t_s_ratio=1", "--lambda_rec=5")),
    "ema": Setting("averaged weights", ("--ema=0.99",), ("--which_epoch=ema",)),
    "ta_discriminator": Setting("DPTN-TA's discriminator", ("--model=DPTNTA", "--lambda_affi=0")),
    "ta_loss": Setting("texture affinity loss", ("--model=DPTNTA", "--netD=spectral"), needs_vgg=True),
    "ta": Setting("DPTN-TA: loss and discriminator", ("--model=DPTNTA",), needs_vgg=True),
}


def main() -> None:
    own, train_flags = split_arguments(sys.argv[1:])
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    default = [name for name, setting in SETTINGS.items() if not setting.needs_vgg]
    add("--settings", nargs="+", choices=list(SETTINGS), default=default, metavar="SETTING",
        help=f"the first one is what the others are compared with; of {', '.join(SETTINGS)}")  # fmt: skip
    add("--seeds", nargs="+", type=count, default=[0, 1, 2], metavar="N", help="seeds of each setting")
    add("--dataset_mode", choices=dataset_names(), default="market", help="which data set")
    add("--dataroot", type=Path, default=Path("dataset/ablation_people"), metavar="DIR", help="the data set")
    add("--out", type=Path, default=Path("results/ablation"), metavar="DIR", help="folder for everything")
    add("--jobs", type=positive_int, default=1, metavar="N", help="runs at the same time; more than one on a large GPU")
    add("--gpu_ids", "--gpu_id", metavar="ID", help="as in train.py")
    args = parser.parse_args(own)
    if any(flag.partition("=")[0] == "--max_minutes" for flag in train_flags):
        parser.error("--max_minutes would count unfinished runs as finished; choose --niter and --niter_decay instead")
    args.settings, args.seeds = (list(dict.fromkeys(given)) for given in (args.settings, args.seeds))
    common = [f"--dataset_mode={args.dataset_mode}", f"--dataroot={args.dataroot.resolve()}"]
    check_same_training(args.out, [*common, *TRAINING, *train_flags])
    common += [f"--gpu_ids={args.gpu_ids}"] if args.gpu_ids is not None else []
    # all settings of one seed first: what is there when it is stopped can be compared
    missing = [(name, seed) for seed in args.seeds for name in args.settings]
    missing = [each for each in missing if not scores_file(args.out, *each).exists()]
    failures = []
    pool = ThreadPoolExecutor(args.jobs)
    try:
        for done in as_completed(pool.submit(make_run, args, *each, common, train_flags) for each in missing):
            try:
                done.result()
                write_report(args.out, args.settings, args.seeds)
            except UserError as error:
                failures.append(error)
                print(f"error: {error}", file=sys.stderr)
    finally:  # stopped by Ctrl-C: what has not started does not start
        pool.shutdown(cancel_futures=True)
    if failures:
        raise UserError(f"{len(failures)} of {len(missing)} runs failed; start this command again to resume them")
    write_report(args.out, args.settings, args.seeds)
    print(f"page: {args.out / 'index.html'}")


def make_run(args: Namespace, name: str, seed: int, common: Sequence[str], train_flags: Sequence[str]) -> None:
    """Train, test and evaluate one setting with one seed."""
    print(f"{name}, seed {seed}", flush=True)
    train_and_test(args, name, seed, common, train_flags)
    evaluate(args, name, seed)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags before and after "--"."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:split]), list(arguments[split + 1 :])


def check_same_training(out: Path, flags: Sequence[str]) -> None:
    """UserError where `out` holds runs of other flags, which cannot stand in one table with these."""
    file, line = out / "training.txt", shlex.join(flags)
    if (out / "runs").exists() and file.exists() and (stored := file.read_text().strip()) != line:
        raise UserError(
            f"{out}: holds runs of another training; choose another --out\n  there: {stored}\n  now:   {line}"
        )
    write_text(file, f"{line}\n")


def scores_file(out: Path, name: str, seed: int) -> Path:
    return out / "scores" / f"{name}_{seed}.csv"


def train_and_test(args: Namespace, name: str, seed: int, common: Sequence[str], train_flags: Sequence[str]) -> None:
    """Train one setting with one seed, and generate its test images."""
    run, setting, out = f"{name}_{seed}", SETTINGS[name], args.out
    where = [f"--name={run}", f"--checkpoints_dir={out / 'runs'}", *common]
    results = out / "results" / run
    resume = ["--continue_train"] if (out / "runs" / run / STATE_FILE).exists() else []
    flags = [*where, *TRAINING, *train_flags, *setting.train, f"--seed={seed}", *resume]
    call([str(ROOT / "train.py"), *flags], f"{run}: train.py", args.jobs)
    flags = [*where, *setting.test, "--batchSize=8", "--nThreads=0", "--image_format=png", f"--results_dir={results}"]
    flags += ["--continue_test"] if (results / RUN_FILE).exists() else []
    call([str(ROOT / "test.py"), *flags], f"{run}: test.py", args.jobs)


def evaluate(args: Namespace, name: str, seed: int) -> None:
    """Write the scores of one setting with one seed."""
    run, root, out, dataset = f"{name}_{seed}", args.dataroot, args.out, find_dataset(args.dataset_mode)
    flags = [
        f"--gt_path={root / 'test'}", f"--distorated_path={out / 'results' / run}", f"--name={run}",
        f"--dataset_mode={args.dataset_mode}", f"--protocol={PROTOCOL}", f"--metrics={','.join(COMPARED_METRICS)}",
        f"--pairs={root / dataset.pairs_csv.format(phase='test')}",
        f"--annotations={root / dataset.keypoints_csv.format(phase='test')}", "--nThreads=0",
        f"--per_image={scores_file(out, name, seed)}", f"--out={out / 'metrics.jsonl'}",
    ]  # fmt: skip
    call(["-m", "metrics.metrics", *flags], f"{run}: evaluation", args.jobs)


def call(arguments: list[str], what: str, jobs: int) -> None:
    """Run Python with `arguments`. Its errors are shown, its progress bar if it runs alone. UserError if it fails."""
    errors = subprocess.PIPE if jobs > 1 else None  # bars appear on a terminal only
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # from any folder
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=errors, text=True, env=environment)
    sys.stderr.write(done.stderr or "")
    if done.returncode:
        raise UserError(f"{what} ended with status {done.returncode}")


def read_scores(out: Path, settings: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """A column for each metric, a row for each pair of each finished run: (setting, seed, source, target)."""
    files = {(name, seed): scores_file(out, name, seed) for name in settings for seed in seeds}
    tables = {key: pd.read_csv(file).set_index(PAIR) for key, file in files.items() if file.exists()}
    table = pd.concat(tables, names=["setting", "seed"])
    columns = {f"{PROTOCOL}:{metric}": metric for metric in COMPARED_METRICS}
    return table[list(columns)].rename(columns=columns)


def compare(scores: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """`read_scores` -> a row for each metric and setting: seeds, mean, spread, difference, its spread, pairs better."""
    scores = scores.sort_index()  # for fast selection
    by_run = scores.groupby(level=["setting", "seed"]).mean()
    differences = scores - scores.loc[settings[0]].reindex(scores.index.droplevel("setting")).to_numpy()
    difference_by_run = differences.groupby(level=["setting", "seed"]).mean()
    rows = {}
    for metric in COMPARED_METRICS:
        sign = 1 if METRICS[metric].higher_is_better else -1
        for name in (name for name in settings if name in by_run.index):
            runs, changes = by_run.loc[name, metric], difference_by_run.loc[name, metric].dropna()
            pairs = differences.loc[name, metric].dropna()
            rows[metric, name] = {
                "seeds": len(runs), "mean": runs.mean(), "spread": runs.std(), "difference": changes.mean(),
                "spread of difference": changes.std(), "pairs better": (sign * pairs > 0).mean(),
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["metric", "setting"])


def write_report(out: Path, settings: Sequence[str], seeds: Sequence[int]) -> None:
    if not any(scores_file(out, settings[0], seed).exists() for seed in seeds):
        return  # nothing to compare with yet
    table = compare(read_scores(out, settings, seeds), settings)
    write_text(out / "ablation.csv", table.to_csv(lineterminator="\n"))
    write_page(out / "index.html", make_page(table, settings, (out / "training.txt").read_text()))


def make_page(table: pd.DataFrame, settings: Sequence[str], training: str) -> document:
    """A table for each metric, with one row for each setting."""
    page = new_page("DPTN: ablation")
    first = SETTINGS[settings[0]].title
    with page:
        tags.h1("What each part of the method does")
        tags.p(
            f"Differences are from {first}, on the same test pairs and with the same seed. After ±: the standard "
            "deviation over seeds. A difference smaller than that shows nothing."
        )
        for metric, rows in table.groupby(level="metric", sort=False):
            tags.h2(f"{metric}, {'higher' if METRICS[metric].higher_is_better else 'lower'} is better")
            add_table([HEADINGS, *map(cells, rows.loc[metric].itertuples())])
        tags.p("Every run: train.py ", tags.code(training))
        with tags.ul():
            for name in settings:
                flags = shlex.join([*SETTINGS[name].train, *SETTINGS[name].test]) or "no flag"
                tags.li(f"{SETTINGS[name].title}: ", tags.code(flags))
    return page


def cells(row: tuple) -> list[str]:
    """One row of `compare` as text."""
    name, seeds, mean, spread, difference, spread_of_difference, better = row
    numbers = [f"{mean:.4f} ± {spread:.4f}", f"{difference:+.4f} ± {spread_of_difference:.4f}", f"{better:.0%}"]
    return [SETTINGS[name].title, str(int(seeds)), *(re.sub(r"\+?nan%?", "–", number) for number in numbers)]


if __name__ == "__main__":
    run_main(main)
