"""Parts of scripts/benchmark/gpu.py besides the grid: machine, goldens, resume, NCCL, test.py, a training."""

import io
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from PIL import Image

from data.loaders import create_test_dataset, create_test_loader
from data.pairs import read_pairs
from data.synthetic.people import render_people
from options.test_options import TestOptions
from scripts.benchmark import results
from scripts.benchmark.gpu_grid import LAYOUTS, MODES_OF_COMPILATION, Cell, best_cell, training_rows
from scripts.benchmark.gpu_report import (
    TINY_GENERATOR,
    TINY_TRAINING,
    Context,
    Row,
    describe_error,
    end_process,
    run_python,
    start_python,
)
from scripts.benchmark.measure import median_seconds
from util.device import use_precision
from util.image import contact_sheet, save_image
from util.parallel import available_cores
from util.reproducibility import git_revision, versions

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS_PART = 15 * 2**20  # bytes of one file
STRIPS = 12
TRAINING_BATCH = {False: 32, True: 4}  # by --quick
NO_VGG = ["--lambda_content=0", "--lambda_style=0"]
RESERVE = 40.0  # seconds for testing and scoring after the training


def describe_machine(context: Context) -> Iterator[Row]:
    device = context.device
    revision = os.environ.get("GIT_REVISION") or git_revision().get("commit") or "unknown"
    facts = {"device": platform.processor() or platform.machine(), "cores": available_cores(), "git": revision}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "memory GB": properties.total_memory / 1e9, "driver": driver_version(),
                  "capability": f"{properties.major}.{properties.minor}", "CUDA": torch.version.cuda,
                  "cuDNN": torch.backends.cudnn.version()}  # fmt: skip
    facts |= versions() | {"C compiler": shutil.which(os.environ.get("CC", "gcc"))}
    for name, value in facts.items():
        yield {"what": name, "value": value}


def driver_version() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()


def measure_matmul(context: Context) -> Iterator[Row]:
    """The rate of a large matrix product in each precision, and of a copy."""
    device, size = context.device, 256 if context.quick else 8192
    for precision in ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16"):
        use_precision(precision, device)
        a, b = (torch.randn(size, size, device=device).to(PRECISIONS[precision]) for _ in range(2))
        for _ in range(3):
            torch.mm(a, b)
        seconds = median_seconds(lambda a=a, b=b: torch.mm(a, b), 10, device)
        yield {"precision": precision, "size": size, "ms": seconds * 1e3, "TFLOP/s": 2 * size**3 / seconds / 1e12}
    size = 2**20 if context.quick else 2**30
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    seconds = median_seconds(lambda: b.copy_(a), 10, device)
    yield {"precision": "copy", "size": size, "ms": seconds * 1e3, "TFLOP/s": 0.0,
           "GB/s read and written": 2 * size / seconds / 1e9}  # fmt: skip


def measure_goldens(context: Context) -> Iterator[Row]:
    """The published numbers on this device, in a process of its own (tests/goldens_on_device.py)."""
    process = start_python("-m", "tests.goldens_on_device", context.device, *(["--quick"] if context.quick else []))
    lines = []
    try:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
            else:
                lines.append(line)
    finally:
        end_process(process)
    if process.returncode:
        raise RuntimeError("".join(lines[-15:]))


def render(context: Context) -> Iterator[Row]:
    """The rendered people that the following parts use."""
    people, photos = ((4, 2), 4) if context.quick else ((120, 10), 8)
    folder, start = context.scratch / "market", time.monotonic()
    render_people(folder, "market", people, photos, seed=0, workers=available_cores())
    context.people = folder
    seconds = time.monotonic() - start
    yield {"photos": sum(people) * photos, "seconds": seconds, "photos/s": sum(people) * photos / seconds}


def people(context: Context) -> Path:
    """The data root of the rendered people; they are rendered here if their part did not run."""
    if context.people is None:
        for _ in render(context):
            pass
    return context.people


def tiny_training(context: Context, name: str, *flags: str) -> list[str]:
    return ["train.py", f"--name={name}", f"--checkpoints_dir={context.scratch}/checkpoints", context.gpu_flag,
            "--dataset_mode=market", f"--dataroot={people(context)}", "--batchSize=4", "--nThreads=1",
            "--vgg_weights=random", "--dis_layers=2", "--max_dataset_size=24", "--niter=1", "--niter_decay=1",
            *TINY_TRAINING, *(NO_VGG if context.quick else []), *flags]  # fmt: skip


def check_resume(context: Context) -> Iterator[Row]:
    """Runs in one go, and runs that stop after a step and resume: the weights must be the same byte for byte."""
    people(context)
    runs = [(d, i) for d in ("deterministic", "no-deterministic") for i in (False, True)]
    with ThreadPoolExecutor(len(runs)) as pool:
        folders = {run: pool.submit(resume_run, context, *run) for run in runs}
    for kind in ("deterministic", "no-deterministic"):
        failures = [error for interrupted in (False, True) if (error := folders[kind, interrupted].exception())]
        if failures:
            yield {"flag": f"--{kind}", "failed": describe_error(failures[0])}
            continue
        whole, resumed = (weights_of(folders[kind, interrupted].result()) for interrupted in (False, True))
        different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
        judged = kind == "deterministic" or context.device.type == "cpu"
        yield {"flag": f"--{kind}", "tensors": len(whole), "different after resuming": len(different),
               "largest difference": max(((whole[n] - resumed[n]).abs().max().item() for n in different), default=0.0),
               "passes": not different if judged else None}  # fmt: skip


def resume_run(context: Context, kind: str, interrupted: bool) -> Path:
    """Train, in one go or interrupted after the first step; returns the run's folder."""
    name = f"{kind}_{'resumed' if interrupted else 'whole'}"
    flags = ["--max_minutes=0"] if interrupted else []
    run_python(*tiny_training(context, name, f"--{kind}", *flags), timeout=context.left())
    folder = context.scratch / "checkpoints" / name
    if interrupted:
        run_python("train.py", f"--name={name}", f"--checkpoints_dir={folder.parent}", "--continue_train",
                   context.gpu_flag, timeout=context.left())  # fmt: skip
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    states = {net: torch.load(folder / f"latest_net_{net}.pth", map_location="cpu", weights_only=True) for net in "GD"}
    return {f"{net}.{name}": tensor.float() for net, state in states.items() for name, tensor in state.items()}


def check_torchrun(context: Context) -> Iterator[Row]:
    """train.py under torchrun, and steps in a group of one process with NCCL."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "--local-addr=127.0.0.1")
    command = tiny_training(context, "torchrun", "--max_dataset_size=8")
    start = time.monotonic()
    output = run_python(*launcher, *command, timeout=context.left())
    done = [line for line in output.splitlines() if line.startswith("done:")]
    yield {
        "command": "train.py",
        "result": done[-1] if done else "no line 'done:'",
        "seconds": time.monotonic() - start,
    }
    start = time.monotonic()
    flags = ["cpu", *NO_VGG] if context.device.type == "cpu" else ["cuda"]
    output = run_python(*launcher, "scripts/benchmark/nccl_step.py", *flags, timeout=context.left())
    result = [line for line in output.splitlines() if line.startswith("backend ")]
    yield {"command": "three steps in a group", "result": result[-1], "seconds": time.monotonic() - start}


def measure_test(context: Context) -> Iterator[Row]:
    """test.py from photos to results beside the network alone, and the loader alone."""
    precision = "bf16" if context.device.type == "cuda" else "fp32"
    flags = [f"--batchSize={2 if context.quick else 32}", context.gpu_flag, *(TINY_GENERATOR if context.quick else [])]
    flags.append(f"--nThreads={0 if context.quick else min(8, available_cores())}")
    seconds, people, photos = (0.1, 1, 4) if context.quick else (4.0, 4, 16)
    with patch.multiple(results, SECONDS=seconds, PEOPLE=people, PHOTOS=photos):
        for row in results.measure_time(context.sizes, flags, [(precision, False)], 3):
            measured = dict(zip(results.TIME_COLUMNS, row))
            yield {**measured, "images/s": 1 / measured["s/image"]}
    for workers in (0,) if context.quick else (2, 8):
        yield loader_rate(context, workers)


def loader_rate(context: Context, workers: int) -> Row:
    """Samples per second of the loader at Market-1501's size, into pinned memory."""
    batch = 4 if context.quick else 32
    opt = TestOptions().parse(["--name=x", "--dataset_mode=market", f"--dataroot={people(context)}",
                               f"--batchSize={batch}", f"--nThreads={workers}"])  # fmt: skip
    dataset = create_test_dataset(opt)
    loader = create_test_loader(opt, dataset.subset(dataset.pairs * (1 if context.quick else 10)), context.device)
    batches = iter(loader)
    next(batches)  # it waits until the workers have started
    start = time.monotonic()
    counted = sum(len(each["source_name"]) for each in batches)
    rate = counted / (time.monotonic() - start)
    return {"test.py": f"loader alone, {workers} workers", "batch": batch, "images/s": rate}


def measure_training(context: Context) -> Iterator[Row]:
    """Train on rendered people for the time that is left, as a user would, then test, score and show samples."""
    results_dir, failed = context.scratch / "results", None
    for number, cell in enumerate(training_cells(context)):
        seconds = 5.0 if context.quick else context.left() - RESERVE
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
    run_python("test.py", *network_flags(context, name, cell), f"--batchSize={TRAINING_BATCH[context.quick]}",
               f"--results_dir={results_dir}", timeout=context.left())  # fmt: skip
    yield {"what": "test.py", "seconds": time.monotonic() - start}
    write_samples(context, results_dir)
    save_halves(context.scratch / "checkpoints" / name / "latest_net_G.pth", context.out)
    yield from score(context, results_dir)


def training_cells(context: Context) -> list[Cell]:
    """Settings to train with, the fastest first; compilation is left out where it would take most of the time."""
    precision = "fp32" if context.device.type == "cpu" else "bf16"
    fallback = Cell("training", "128x64", TRAINING_BATCH[context.quick], precision, "default", "eager")
    best = best_cell(context, "128x64")
    return [best, fallback] if best and (not best.compiled or context.left() > 120 + RESERVE) else [fallback]


def network_flags(context: Context, name: str, cell: Cell) -> list[str]:
    return [f"--name={name}", f"--checkpoints_dir={context.scratch}/checkpoints", "--dataset_mode=market",
            f"--dataroot={people(context)}", context.gpu_flag, *(TINY_GENERATOR if context.quick else []),
            f"--precision={cell.precision}", *LAYOUTS[cell.layout], *MODES_OF_COMPILATION[cell.mode]]  # fmt: skip


def train(context: Context, cell: Cell, name: str, seconds: float) -> Row:
    """Train for `seconds` with the flags of scripts/demo.sh; the schedule should end by then."""
    batch = TRAINING_BATCH[context.quick]
    epochs = max(2, round(expected_pairs(context, seconds) / number_of_pairs(context)))
    flags = ["--dis_layers=3", "--lambda_rec=10", "--lambda_g=0.2", *NO_VGG, f"--batchSize={batch}",
             f"--niter={epochs // 2}", f"--niter_decay={epochs - epochs // 2}", f"--max_minutes={seconds / 60:.4f}",
             f"--print_freq={4 if context.quick else 640}", f"--nThreads={min(8, available_cores())}",
             *(["--ndf=8"] if context.quick else [])]  # fmt: skip
    start = time.monotonic()
    run_python("train.py", *network_flags(context, name, cell), *flags, timeout=context.left())
    seconds = time.monotonic() - start
    log_file = context.scratch / "checkpoints" / name / "loss_log.jsonl"
    log = [json.loads(line) for line in log_file.read_text().splitlines()]
    speeds = [1 / row["time"] for row in log if row["time"]]
    return {"what": "training", "setting": str(cell), "seconds": seconds, "samples": log[-1]["total_iters"],
            "epochs planned": epochs, "samples/s (median)": median(speeds)}  # fmt: skip


def number_of_pairs(context: Context) -> int:
    return len(read_pairs(people(context) / "market-pairs-train.csv"))


def expected_pairs(context: Context, seconds: float) -> float:
    """Training pairs in `seconds`, by the grid; without VGG19 steps are about 1.5 times as fast."""
    rows = training_rows(context, "128x64")
    return 1.5 * (seconds - 15) * rows[0]["pairs/s"] if rows and not context.quick else 8


def write_samples(context: Context, results_dir: Path) -> None:
    strips = sorted((results_dir / "strips").glob("*.jpg"))
    shown = strips[:: -(-len(strips) // STRIPS)]
    save_image(contact_sheet([[Image.open(strip)] for strip in shown]), context.out / "samples.png")
    context.note("samples.png: source image, source pose, target pose, generated, target image")


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
    common = ["-m", "metrics.metrics", "--market", "--protocol=standard", "--metrics=l1,psnr,ssim_256,mask_ssim",
              f"--gt_path={data}/test", f"--pairs={data}/market-pairs-test.csv", "--gpu_ids=-1", "--nThreads=4",
              f"--annotations={data}/market-annotation-test.csv"]  # fmt: skip
    evaluations = {
        "network": [f"--distorted_path={results_dir}", "--name=network"],
        "copy_source": ["--baseline=copy_source"],
        "mean_image": ["--baseline=mean_image", f"--fid_real_path={data}/train"],
    }
    with ThreadPoolExecutor(len(evaluations)) as pool:
        outs = {name: record.with_name(f"{name}.jsonl") for name in evaluations}
        runs = [pool.submit(run_python, *common, *flags, f"--out={outs[name]}", timeout=context.left())
                for name, flags in evaluations.items()]  # fmt: skip
        for run in runs:
            run.result()
    for name, out in outs.items():
        metrics = json.loads(out.read_text().splitlines()[-1])["metrics"]
        yield {"what": name, **{metric: measurement.get("value") for metric, measurement in metrics.items()}}
