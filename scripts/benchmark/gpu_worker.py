"""A process that measures some settings: it prepares the first ones, and then waits for a line on its standard input.

    python -m scripts.benchmark.gpu_worker cuda|cpu full|quick CELLS     # CELLS: a JSON list of the fields of cells

It prints one JSON object a line: {"ready": seconds}, then for each cell its times, then {"cell": ..., "profile": ...}
of training steps, then {"done": true}. What is compiled is timed by the process that compiled it. Each process has few
models, so that neither the profiler nor memory that a failed recording leaves behind disturbs the others.
"""

import gc
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from statistics import median

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from models.base_model import BaseModel
from scripts.benchmark.gpu_cells import Cell
from scripts.benchmark.gpu_report import TINY_TRAINING, Row, describe_error
from scripts.benchmark.measure import count_gflop, free_memory, seconds
from scripts.benchmark.networks import MODES, build, one_call, random_batch
from scripts.benchmark.published_step import build_published, with_heat_maps
from util.device import select_device

WARM_UP = 3  # calls before any timing
WARM_UP_OF_GRAPH = 6  # three plain steps, the recording, and two replays
KERNELS_LISTED = 25
ANNOTATIONS = ("Optimizer.", "Torch-Compiled", "##", "CompiledFunction")  # names of events that are no kernels
KERNEL_CLASSES = {  # the first pattern that a kernel's name contains
    "Triton pointwise": r"^triton_poi",
    "Triton reduction": r"^triton_(red|per)",
    "layout conversion": r"nchw_?(to|2)_?nhwc|nhwc_?(to|2)_?nchw|tensortransform|converttensor",
    "normalization": r"(batch|layer|group|instance)_?norm|bn_(fw|bw)|gammabeta|rowwisemoments",
    "attention": r"fmha|flash|attention|softmax",
    "convolution": r"conv|cudnn|fprop|dgrad|wgrad|winograd|implicit_gemm|im2col",
    "optimizer": r"adam|multi_tensor_apply",
    "matmul": r"gemm|gemv|cutlass|cublas|nvjet|splitk|addmm|bmm|aten::mm",
    "copy": r"memcpy|memset|copy|catarray|aten::(cat|fill_|zero_)",
    "reduction": r"reduce|aten::(sum|mean)",
    "elementwise": r"elementwise|vectorized|aten::(add|mul|sub|div|where|leaky_relu|tanh|sigmoid|pow|sqrt|exp|clamp)",
}


def class_of_kernel(name: str) -> str:
    return next((kind for kind, pattern in KERNEL_CLASSES.items() if re.search(pattern, name.lower())), "other")


def build_cell(cell: Cell, device: torch.device, quick: bool) -> BaseModel:
    """A cell's model with random weights."""
    torch.manual_seed(0)
    if cell.work == "published":
        flags = [f"--precision={cell.precision}", *(TINY_TRAINING if quick else [])]
        return build_published(MODES[cell.size], device, flags)
    return build("training" if cell.is_training else "inference", MODES[cell.size], cell.flags(quick), device)


def call_of(model: BaseModel, cell: Cell, batch: int) -> Callable[[], None]:
    """A function that makes one call, from a loader's batch in pinned memory on."""
    data = random_batch(batch, MODES[cell.size])
    if cell.work == "published":
        data = with_heat_maps(data)
    if model.device.type == "cuda":
        data = {name: tensor.pin_memory() for name, tensor in data.items()}
    return one_call(model, data)


def prepare(cell: Cell, device: torch.device, quick: bool) -> tuple[BaseModel, float | None]:
    """The model of a cell, compiled by two calls if it is to be compiled; in eager mode also its GFLOP of a pair."""
    model, gflop = build_cell(cell, device, quick), None
    torch.backends.cudnn.benchmark = False  # trying kernels is for the timing
    if cell.compiled:  # the second model of a process finds the compiled code of the first one
        run = call_of(model, cell, cell.batch)
        run()
        run()
    elif cell.mode == "eager":
        gflop = count_gflop(call_of(model, cell, 1))
    model.fake_target = model.fake_source = None
    torch.backends.cudnn.benchmark = True
    return model, gflop


def measure(job: list[Cell], device: torch.device, quick: bool) -> Iterator[Row]:
    """{"ready": seconds} when the first models are prepared, then rows of all cells."""
    start = time.monotonic()
    prepared, problem = {}, None
    try:
        prepared[job[0]] = prepare(job[0], device, quick)
    except torch.cuda.OutOfMemoryError:
        pass  # beside the other processes: it is tried again
    except Exception as error:
        problem = describe_error(error)
    free_memory(device)
    yield {"ready": time.monotonic() - start}
    model = previous = None
    for cell in job:
        row: Row = {field.name: getattr(cell, field.name) for field in fields(cell)}
        if problem and cell.compiled:  # compiling again would take the time of other cells
            yield row | {"failed": problem}
            continue
        gflop = None
        try:
            if model and previous and cell == previous.with_graph():  # the same model, which is compiled already
                record_from_now_on(model)
            else:
                model = None
                free_memory(device)
                model, gflop = prepared.pop(cell, None) or prepare(cell, device, quick)
            run = call_of(model, cell, cell.batch)
            yield row | time_cell(cell, run, device, quick) | {"GFLOP/pair": gflop}
            if cell.profiled or (quick and cell.is_training):
                yield {"cell": astuple(cell), "profile": profile_call(run, device)}
            previous = cell
        except Exception as error:  # the next cell may work
            yield row | {"failed": describe_error(error)}
            model = previous = None
        run = None
        free_memory(device)


def record_from_now_on(model: BaseModel) -> None:
    """Turn on --cuda_graph in a model that has made plain steps."""
    model.fake_target = model.fake_source = model.losses = None  # they keep the gradients' old stream
    gc.collect()
    model.optimize_parameters = model.graphed_step(lambda: model.batch)


def time_cell(cell: Cell, run: Callable[[], None], device: torch.device, quick: bool) -> Row:
    first = seconds(run, device)
    for _ in range(0 if quick else WARM_UP_OF_GRAPH if cell.graph else WARM_UP):
        run()
    if not cell.graph:  # trying kernels took more memory; a graph's peak is that of its plain steps and the recording
        free_memory(device)
        run()
    row = {"ms": milliseconds(run, device, quick), "first call s": first}
    if device.type == "cuda":
        row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
        row["reserved GB"] = torch.cuda.memory_reserved() / 1e9
    return row


def milliseconds(run: Callable[[], object], device: torch.device, quick: bool) -> float:
    """Milliseconds of a call among calls back to back: the host waits for the device only at the end of a group."""
    once = seconds(run, device)
    if quick:
        return once * 1e3
    steps = max(1, min(20, round(0.15 / once)))

    def group() -> None:
        for _ in range(steps):
            run()

    return median(seconds(group, device) / steps for _ in range(5)) * 1e3


def profile_call(run: Callable[[], object], device: torch.device) -> Row:
    """Kernels of a call, calls of the driver that launch them, milliseconds by class and by kernel.

    On a CPU these are torch's operations, and their number.
    """
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        seconds(run, device)
    events = profiler.events()
    on_host = [e for e in events if e.device_type == DeviceType.CPU]
    launches = sum("LaunchKernel" in e.name or "GraphLaunch" in e.name for e in on_host)
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    kernels = [e for e in on_device if not e.name.startswith(ANNOTATIONS)] if on_gpu else on_host
    classes, times, calls = Counter(), Counter(), Counter()
    for event in kernels:
        ms = (event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total) / 1e3
        classes[class_of_kernel(event.name)] += ms
        times[event.name] += ms
        calls[event.name] += 1
    number = sum(not event.name.startswith(("Memcpy", "Memset")) for event in kernels)
    listed = [(name[:150], calls[name], ms) for name, ms in times.most_common(KERNELS_LISTED)]
    return {"kernels": number or None, "launches": launches or None, "kernels ms": times.total() or None,
            "classes": dict(classes.most_common()), "listed": listed}  # fmt: skip


def main() -> None:
    device_name, scale, cells = sys.argv[1:]
    job = [Cell(*cell) for cell in json.loads(cells)]
    if not job[0].compiled:
        os.nice(10)  # compilation, which takes longer, goes first
    device = select_device("-1" if device_name == "cpu" else "0")
    for row in measure(job, device, scale == "quick"):
        print(json.dumps(row), flush=True)
        if "ready" in row and not sys.stdin.readline():
            return  # the main process has ended
    print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
