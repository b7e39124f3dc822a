"""Parts of scripts/benchmark/gpu.py: machine, matrix products, goldens, resume, NCCL, test.py."""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import torch

from data.loaders import create_test_dataset, create_test_loader
from data.synthetic.people import render_people
from options.test_options import TestOptions
from scripts.benchmark import gpu_report, results
from scripts.benchmark.gpu_report import NO_VGG, TINY_GENERATOR, TINY_TRAINING, Context, Row, run_python
from scripts.benchmark.measure import median_seconds
from util.device import PRECISIONS, use_precision
from util.reproducibility import git_revision, versions
from util.worker_processes import available_cores

LOADER_ALONE = "loader alone"
TORCHRUN_TRAINING = "train.py"


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
    flags = ["--quick"] if context.quick else []
    process, lines = gpu_report.start_python("-m", "tests.goldens_on_device", context.device, *flags), []
    try:
        for line in process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
            else:
                lines.append(line)
    finally:
        gpu_report.end_process(process)
    if process.returncode:
        raise RuntimeError("".join(lines[-15:]))


def render(context: Context) -> Iterator[Row]:
    """The rendered people that the following parts use, unless a data set was given."""
    if context.people:
        yield {"data set": str(context.people)}
        return
    people, photos = ((2, 1), 4) if context.quick else ((300, 10), 8)
    folder, start = context.scratch / "market", time.monotonic()
    render_people(folder, "market", people, photos, seed=0, workers=available_cores())
    context.people = folder
    seconds = time.monotonic() - start
    yield {"photos": sum(people) * photos, "seconds": seconds, "photos/s": sum(people) * photos / seconds}


def people(context: Context) -> Path:
    """The data root of the rendered people; they are rendered here if their part did not run."""
    if context.people is None:
        list(render(context))
    return context.people


def tiny_training(context: Context, name: str, *flags: str) -> list[str]:
    return ["train.py", f"--name={name}", f"--checkpoints_dir={context.scratch}/checkpoints", context.gpu_flag,
            "--dataset_mode=market", f"--dataroot={people(context)}", "--batchSize=4", "--nThreads=1",
            "--vgg_weights=random", "--dis_layers=2", f"--max_dataset_size={8 if context.quick else 24}",
            "--niter=1", "--niter_decay=1", *TINY_TRAINING, *(NO_VGG if context.quick else []), *flags]  # fmt: skip


def check_resume(context: Context) -> Iterator[Row]:
    """Runs in one go, and runs that stop after a step and resume: the weights must be the same byte for byte."""
    people(context)
    kinds = ["--deterministic"] + ["--deterministic --cuda_graph"] * (context.device.type == "cuda")
    with ThreadPoolExecutor(2 * len(kinds)) as pool:
        runs = {flags: [pool.submit(resume_run, context, flags, stop) for stop in (False, True)] for flags in kinds}
    for flags, futures in runs.items():
        if failures := [error for future in futures if (error := future.exception())]:
            yield {"flags": flags, "failed": gpu_report.describe_error(failures[0])}
            continue
        whole, resumed = (weights_of(future.result()) for future in futures)
        different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
        yield {"flags": flags, "tensors": len(whole), "different after resuming": len(different),
               "largest difference": max(((whole[n] - resumed[n]).abs().max().item() for n in different), default=0.0),
               "passes": not different}  # fmt: skip


def resume_run(context: Context, flags: str, interrupted: bool) -> Path:
    """Train, in one go or interrupted after the first step; returns the run's folder."""
    name = f"{flags.split('--')[-1]}_{'resumed' if interrupted else 'whole'}"
    stop = ["--max_minutes=0"] if interrupted else []
    run_python(*tiny_training(context, name, *flags.split(), *stop), timeout=context.left())
    folder = context.scratch / "checkpoints" / name
    if interrupted:
        run_python("train.py", f"--name={name}", f"--checkpoints_dir={folder.parent}", "--continue_train",
                   context.gpu_flag, timeout=context.left())  # fmt: skip
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    states = {net: torch.load(folder / f"latest_net_{net}.pth", map_location="cpu", weights_only=True) for net in "GD"}
    return {f"{net}.{name}": tensor.float() for net, state in states.items() for name, tensor in state.items()}


def check_torchrun(context: Context) -> Iterator[Row]:
    """train.py under torchrun, and steps in a group of one process with NCCL; on a GPU at the same time."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "--local-addr=127.0.0.1")
    training = tiny_training(context, "torchrun", "--max_dataset_size=8")
    steps = ["scripts/benchmark/nccl_step.py", *(["cpu", *NO_VGG] if context.device.type == "cpu" else ["cuda"])]
    commands = [(TORCHRUN_TRAINING, "done:", training), ("three steps in a group", "backend ", steps)]
    with ThreadPoolExecutor(2 if context.device.type == "cuda" else 1) as pool:
        outputs = [pool.submit(run_python, *launcher, *command, timeout=context.left()) for *_, command in commands]
    for (title, start, _), output in zip(commands, outputs):
        if error := output.exception():
            yield {"command": title, "result": gpu_report.describe_error(error)}
            continue
        lines = output.result().splitlines()
        yield {"command": title, "result": next((line for line in lines if line.startswith(start)), "no result")}


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
    for workers in (0,) if context.quick else (4, loader_workers()):
        yield loader_rate(context, workers)


def loader_workers() -> int:
    return max(1, min(12, available_cores() - 2))


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
    return {"test.py": f"{LOADER_ALONE}, {workers} workers", "batch": batch, "images/s": rate}
