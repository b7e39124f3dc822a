"""Evaluate generated images against their target photos.

    python -m metrics.metrics --gt_path=./dataset/fashion/test --distorated_path=./results/DPTN_fashion \\
        --fid_real_path=./dataset/fashion/train --name=./fashion
    python -m metrics.metrics --gt_path=./dataset/market/test --distorated_path=./results/DPTN_market \\
        --fid_real_path=./dataset/market/train --name=./market --market

Protocols and what their switches do: metrics/protocols.py. All flags: python -m metrics.metrics --help
"""

import json
import shlex
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from data import find_dataset
from data.pairs import Pair, read_keypoints, read_pairs
from metrics import report
from metrics.evaluation import MASKED, Evaluation, EvaluationSetup, Networks, evaluate, load_networks, network_of
from metrics.options import choose_batch_size, parse
from metrics.pairing import Matches, Problems, Sample, match_names, match_pairs, match_sources, photos_below
from metrics.protocols import PROTOCOLS, View
from metrics.stream import PairDataset, PhotoDataset, mean_image
from util.device import describe_device, select_device, use_precision
from util.errors import UserError, run_main, summarize
from util.files import sha256
from util.image import save_image, to_pil
from util.reproducibility import git_revision, versions
from util.results import PAGE_FILE, RUN_FILE

EXPECTED_FILES = (RUN_FILE, PAGE_FILE)  # beside the images in a folder of results


def main() -> None:
    args = parse()
    if args.compare:
        print(report.compare(args.compare, args.published))
        return
    report.check_outputs(args.out, args.per_image, args.html)
    pairs = read_pairs(args.pairs) if args.pairs else None
    if args.against:
        compare_with_others(args, pairs)
    else:
        run(args, pairs)


def compare_with_others(args: Namespace, pairs: Sequence[Pair]) -> None:
    """Evaluate the results, and those of --against, and print the differences."""
    changed = {"distorated_path": args.against, "name": str(args.against)}
    changed |= dict.fromkeys(("baseline", "checkpoint", "per_image", "html"))  # these belong to the first results
    others = Namespace(**(vars(args) | changed))
    if not args.against.is_dir():
        raise UserError(f"--against {args.against}: no such folder")
    Problems(allowed=False, advice="").add(find_samples(others, pairs)[1], last=True)  # before the first evaluation
    table = report.difference_table(run(args, pairs), run(others, pairs))
    print(f"\nfirst: {args.name}, second: {args.against}; first - second, {args.bootstrap} draws of the same pairs")
    print(report.format_table(table) if len(table) else "no metric has an interval in both evaluations")


def run(args: Namespace, pairs: Sequence[Pair] | None) -> Evaluation:
    """Evaluate one folder of results, or a baseline: print the numbers, and write all that `args` wants."""
    start = time.perf_counter()
    problems = Problems(allowed=False, advice="") if args.against else Problems(args.allow_missing)
    with tempfile.TemporaryDirectory() as scratch:
        setup = make_setup(args, pairs, problems, Path(scratch))
        weights = {"torchvision": args.inception_weights, "pytorch-fid": args.fid_inception_weights}
        networks = load_networks(setup, weights | {"alexnet": args.alexnet_weights}, args.skip_unavailable)
        record = describe_inputs(args, setup, networks)  # before evaluating, so an unreadable file fails early
        print(f"{len(setup.pairs):,} pairs on {describe_device(setup.device)}", flush=True)
        evaluation = evaluate(setup, networks, problems)
        measurements, values, _ = evaluation

        record["time"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record["seconds"] = round(time.perf_counter() - start, 3)
        record["problems"] = problems.counts()
        report.append_records(args.out, record, measurements)
        summary = summarize_run(args, setup, problems)
        if args.per_image:
            report.write_per_image(args.per_image, setup.pairs.samples, values, pairs)
        if args.html:
            from metrics.page import write_evaluation_page

            write_evaluation_page(args.html, args.name, summary, measurements, values, setup.pairs, args.source_path)
    print("\n".join([report.format_table(report.results_table(measurements)), *report.remarks(measurements), *summary]))
    print(f"{record['seconds']:.0f} s; recorded in {args.out}")
    return evaluation


def make_setup(args: Namespace, pairs: Sequence[Pair] | None, problems: Problems, scratch: Path) -> EvaluationSetup:
    """Read and check everything but the images themselves. The mean image of --baseline is written into `scratch`."""
    device = select_device(args.gpu_ids)
    use_precision(args.precision, device)
    batch_size = choose_batch_size(args, device)
    size = find_dataset(args.dataset_mode).stored_size
    real, real_file = args.fid_real_path, None
    if real and real.suffix == ".npz":
        real, real_file = None, real
    real_photos = PhotoDataset(real, photos_below(real, "--fid_real_path"), View(size)) if real else None
    samples, wrong = find_samples(args, pairs)
    problems.add(wrong, last=True)
    if not samples:
        raise UserError("nothing to evaluate: no result has a target photo")
    if "fid" in args.metrics and (len(samples) < 2 or (real_photos and len(real_photos) < 2)):
        raise UserError("fid needs at least 2 images on each side; choose other --metrics")
    if args.baseline == "mean_image":
        save_image(to_pil(mean_image(real_photos, batch_size, args.nThreads, problems)), scratch / "mean.png")
        samples = [sample._replace(generated=scratch / "mean.png") for sample in samples]
    protocols = [PROTOCOLS[name] for name in args.protocol]
    masked = set(args.metrics) & set(MASKED)
    keypoints = target_keypoints(args.annotations, samples, args.dataset_mode) if masked else None
    has_network = any(network_of(name, protocol) for name in args.metrics for protocol in protocols)
    dataset = PairDataset(samples, args.gt_path, args.dataset_mode, protocols, args.metrics, keypoints, has_network)
    return EvaluationSetup(
        dataset, real_photos, real_file, args.cache_dir, device, args.precision, batch_size,
        workers=args.nThreads, bootstrap=args.bootstrap, baseline=bool(args.baseline),
    )  # fmt: skip


def find_samples(args: Namespace, pairs: Sequence[Pair] | None) -> Matches:
    """What is compared with what, and a problem for each image that is missing or extra."""
    targets = photos_below(args.gt_path, "--gt_path")
    sources = targets if args.source_path == args.gt_path else photos_below(args.source_path, "--source_path")
    if args.baseline:
        return match_sources(pairs, args.source_path, sources, targets)
    # no subfolders: test.py writes the thumbnails of its page into one
    found = photos_below(args.distorated_path, "--distorated_path", EXPECTED_FILES)
    results = [name for name in found if "/" not in name]
    if pairs:
        samples, problems = match_pairs(pairs, args.distorated_path, results, targets, args.naming)
    else:
        samples, problems = match_names(args.distorated_path, results, targets, sources)
    if not args.allow_missing:
        advice = "" if getattr(args, "against", None) else "; --allow_missing evaluates all of them"
        check_finished(args.distorated_path, len({sample.generated for sample in samples}), advice)
    return samples, problems


def check_finished(folder: Path, count: int, advice: str) -> None:
    """UserError where test.py was stopped, or has generated less than the `count` images: others may be older ones."""
    try:
        run = dict(json.loads((folder / RUN_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return  # of another program
    finished, pairs = run.get("finished", True), run.get("pairs", count)  # earlier versions wrote neither
    if not finished or pairs < count:
        done = f"has generated only {pairs} of these {count} images" if finished else "has not finished here"
        rest = "test.py --continue_test generates the rest"
        raise UserError(f"{folder}: test.py {done}, so that others may be of an earlier run; {rest}{advice}")


def target_keypoints(path: Path, samples: Sequence[Sample], dataset_mode: str) -> dict[str, np.ndarray]:
    """Name -> (18,2) of every target, in pixels of the stored size. UserError lists those without any joint there."""
    dataset = find_dataset(dataset_mode)
    size, scale = dataset.stored_size, dataset.csv_scale()
    keypoints = {name: joints * scale for name, joints in read_keypoints(path).items()}
    names = dict.fromkeys(sample.target for sample in samples)
    inside = {name for name, joints in keypoints.items() if ((joints >= 0) & (joints < size)).all(axis=1).any()}
    if without := [name for name in names if name not in inside]:
        raise UserError(f"{path}: mask metrics need joints inside these target photos:\n{summarize(without)}")
    return {name: keypoints[name] for name in names}


def summarize_run(args: Namespace, setup: EvaluationSetup, problems: Problems) -> list[str]:
    """Lines for the console and the web page: what was evaluated, and what was left out."""
    results = f"baseline {args.baseline}" if args.baseline else args.distorated_path
    names = "inferred from file names; missing results cannot be detected"
    lines = [
        f"{args.name}: {results}, {args.dataset_mode}, {len(setup.pairs):,} pairs",
        f"pairs: {f'{args.pairs} ({args.paired_by})' if args.pairs else names}",
    ]
    if problems:
        counts = ", ".join(f"{number} {kind}" for kind, number in problems.counts().items())
        lines.append(f"left out: {counts}; for example {next(iter(problems))}")
    return lines


def describe_inputs(args: Namespace, setup: EvaluationSetup, networks: Networks) -> dict[str, Any]:
    """What the JSON lines of this evaluation say about its inputs and its environment."""
    paths = {
        "generated": args.baseline or args.distorated_path, "targets": args.gt_path, "sources": args.source_path,
        "real": getattr(args, "fid_real_path", None), "pairs": args.pairs,
        "annotations": getattr(args, "annotations", None),
    }  # fmt: skip
    return {
        "name": args.name, "data_set": args.dataset_mode, "baseline": args.baseline, "pairs": len(setup.pairs),
        "paired_by": args.paired_by, "completeness": "checked" if args.pairs else "unknown",
        "paths": {role: str(path) for role, path in paths.items() if path}, "weights": networks.weights,
        "precision": setup.precision, "device": describe_device(setup.device),
        "versions": versions("lpips", "pytorch-fid"),
        "git": git_revision(), "command": shlex.join(sys.argv), **generator_checkpoint(args),
    }  # fmt: skip


def generator_checkpoint(args: Namespace) -> dict[str, dict[str, str]]:
    """Path and SHA-256 of the generator's weights: of --checkpoint, or as test.py recorded them beside its results."""
    if args.checkpoint:
        return {"checkpoint": {"path": str(args.checkpoint), "sha256": sha256(args.checkpoint)}}
    try:
        run = json.loads((args.distorated_path / RUN_FILE).read_text()) if args.distorated_path else {}
        return {"checkpoint": {"path": run["weights_file"], "sha256": run["made_with"]["weights"]}}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


if __name__ == "__main__":
    run_main(main)
