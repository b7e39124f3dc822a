"""The last part of scripts/benchmark/gpu.py: a training on rendered people in the time that is left, and its scores."""

import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from data.pairs import read_pairs
from scripts.benchmark.gpu_cells import LAYOUTS, MODES_OF_SPEED, Cell
from scripts.benchmark.gpu_checks import LOADER_ALONE, loader_workers, people
from scripts.benchmark.gpu_grid import training_rows
from scripts.benchmark.gpu_report import NO_VGG, TINY_GENERATOR, Context, Row, describe_error, run_python
from util.image import contact_sheet, save_image

WEIGHTS_PART = 15 * 2**20  # bytes of one file
STRIPS = 12
BATCH = {False: 32, True: 4}  # by --quick
TO_SCORE = 35.0  # seconds for testing and scoring after the training
TO_START = 15.0  # seconds until the first step


def measure_training(context: Context) -> Iterator[Row]:
    """Train at half width for the time that is left, as a user would, then test, score and show samples."""
    people(context)  # rendered before the time is divided
    results_dir, failed = context.scratch / "results", None
    for number, cell in enumerate(training_cells(context)):
        seconds = 5.0 if context.quick else context.left() - TO_SCORE
        if seconds < 5:
            break
        try:
            yield train(context, cell, f"people{number}", seconds)
            break
        except RuntimeError as error:  # the next setting may work
            failed = error
            context.note(f"training with {cell}: {describe_error(error)}")
    else:
        raise failed
    start = time.monotonic()
    name = f"people{number}"
    run_python("test.py", *network_flags(context, name, cell), f"--batchSize={BATCH[context.quick]}",
               f"--results_dir={results_dir}", timeout=context.left())  # fmt: skip
    yield {"what": "test.py", "seconds": time.monotonic() - start}
    strips = sorted((results_dir / "strips").glob("*.jpg"))
    shown = strips[:: -(-len(strips) // STRIPS)]
    save_image(contact_sheet([[Image.open(strip)] for strip in shown]), context.out / "samples.png")
    context.note("samples.png: source image, source pose, target pose, generated, target image")
    save_halves(context.scratch / "checkpoints" / name / "latest_net_G.pth", context.out)
    yield from score(context, results_dir)


def training_cells(context: Context) -> list[Cell]:
    """Settings to train with, without compilation: the fastest one that was measured, then the plainest one."""
    precision = "fp32" if context.device.type == "cpu" else "bf16"
    plain = Cell("half width", "128x64", BATCH[context.quick], precision, "default", "eager")
    if context.device.type == "cpu":
        return [plain]
    measured = training_rows(context, "128x64", "half width", mode="graph")
    measured = measured or training_rows(context, "128x64", precision=precision, mode="graph")
    layout = measured[0]["layout"] if measured else "default"
    return [Cell("half width", "128x64", BATCH[context.quick], precision, layout, "graph"), plain]


def network_flags(context: Context, name: str, cell: Cell) -> list[str]:
    width = TINY_GENERATOR if context.quick else ["--ngf=32"]
    return [f"--name={name}", f"--checkpoints_dir={context.scratch}/checkpoints", "--dataset_mode=market",
            f"--dataroot={people(context)}", context.gpu_flag, f"--precision={cell.precision}", *LAYOUTS[cell.layout],
            *width]  # fmt: skip


def train(context: Context, cell: Cell, name: str, seconds: float) -> Row:
    """Train for `seconds`, with L1 and adversarial loss alone; the schedule should end by then."""
    batch = BATCH[context.quick]
    pairs = read_pairs(people(context) / "market-pairs-train.csv")
    epochs = max(2, round(expected_pairs(context, seconds) / len(pairs)))
    flags = [*MODES_OF_SPEED[cell.mode], "--lr=5e-4", "--dis_layers=3", "--lambda_rec=10", "--lambda_g=0.2", *NO_VGG,
             f"--batchSize={batch}", f"--niter={epochs // 2}", f"--niter_decay={epochs - epochs // 2}",
             f"--max_minutes={seconds / 60:.4f}", f"--print_freq={4 if context.quick else 1600}",
             "--display_freq=32000", "--save_latest_freq=1000000", f"--nThreads={loader_workers()}",
             "--cache_images", *(["--ndf=8"] if context.quick else [])]  # fmt: skip
    start = time.monotonic()
    run_python("train.py", *network_flags(context, name, cell), *flags, timeout=context.left())
    log_file = context.scratch / "checkpoints" / name / "loss_log.jsonl"
    log = [json.loads(line) for line in log_file.read_text().splitlines()]
    speeds = [1 / row["time"] for row in log if row["time"]]
    return {"what": "training", "setting": str(cell), "seconds": time.monotonic() - start,
            "samples": log[-1]["total_iters"], "epochs planned": epochs,
            "samples/s (median)": median(speeds)}  # fmt: skip


def expected_pairs(context: Context, seconds: float) -> float:
    """Training pairs in `seconds`, by the speed of the network alone and of the loader alone, whichever is lower."""
    rows = training_rows(context, "128x64", "half width")
    if context.quick or not rows:
        return 8 if context.quick else 400 * seconds
    rates = [rows[0]["pairs/s"]]
    rates += [row["images/s"] for row in context.rows("test.py") if row["test.py"].startswith(LOADER_ALONE)][-1:]
    return 0.9 * (seconds - TO_START) * min(rates)


def save_halves(weights: Path, out: Path) -> None:
    """The generator in float16, each tensor once, in parts: cat generator_fp16.pt.* > generator_fp16.pt."""
    state, halves = torch.load(weights, map_location="cpu", weights_only=True), {}
    for tensor in state.values():  # aliases share memory
        halves.setdefault(tensor.data_ptr(), tensor.half())
    buffer = io.BytesIO()
    torch.save({name: halves[tensor.data_ptr()] for name, tensor in state.items()}, buffer)
    content = buffer.getvalue()
    for number, start in enumerate(range(0, len(content), WEIGHTS_PART)):
        (out / f"generator_fp16.pt.{number}").write_bytes(content[start : start + WEIGHTS_PART])


def score(context: Context, results_dir: Path) -> Iterator[Row]:
    """Pixel metrics of the network and of two baselines that need none, as in scripts/demo.sh."""
    data, record = people(context), context.scratch / "metrics.jsonl"
    workers = 0 if context.quick else min(4, loader_workers())
    common = ["-m", "metrics.metrics", "--market", "--protocol=standard", "--metrics=l1,psnr,ssim_256,mask_ssim",
              f"--gt_path={data}/test", f"--pairs={data}/market-pairs-test.csv", "--gpu_ids=-1",
              f"--annotations={data}/market-annotation-test.csv", f"--nThreads={workers}"]  # fmt: skip
    evaluations = {
        "network": [f"--distorted_path={results_dir}", "--name=network"],
        "copy_source": ["--baseline=copy_source"],
        "mean_image": ["--baseline=mean_image", f"--fid_real_path={data}/train"],
    }
    with ThreadPoolExecutor(1 if context.quick else len(evaluations)) as pool:
        outs = {name: record.with_name(f"{name}.jsonl") for name in evaluations}
        runs = [pool.submit(run_python, *common, *flags, f"--out={outs[name]}", timeout=context.left())
                for name, flags in evaluations.items()]  # fmt: skip
        for run in runs:
            run.result()
    for name, out in outs.items():
        metrics = json.loads(out.read_text().splitlines()[-1])["metrics"]
        yield {"what": name, **{metric: measurement.get("value") for metric, measurement in metrics.items()}}
