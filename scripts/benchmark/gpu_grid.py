"""Times the networks of both published sizes in every setting; also compiles a setting in a process of its own:

python -m scripts.benchmark.gpu_grid CELL     # CELL: the fields of a Cell, joined by commas
"""

import gc
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import product
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from models.base_model import BaseModel
from scripts.benchmark.gpu_report import (
    TINY_GENERATOR,
    TINY_TRAINING,
    Context,
    Row,
    describe_error,
    end_process,
    start_python,
)  # fmt: skip
from scripts.benchmark.measure import count_gflop, seconds
from scripts.benchmark.networks import MODES, build, one_call, random_batch
from scripts.benchmark.published_step import build_published, with_heat_maps

PRECISIONS = ("bf16", "tf32", "fp32")
LAYOUTS = {"channels_last": ["--channels_last"], "contiguous": ["--no-channels_last"], "default": []}
MODES_OF_COMPILATION = {
    "eager": ["--no-compile"],
    "compile": ["--compile"],
    "reduce-overhead": ["--compile", "--compile_mode=reduce-overhead"],
}
WARM_UP = 3  # calls before any timing; compiled ones take more
PUBLISHED_STEPS = {"256x256": 200 * 3186, "128x64": 200 * 8238}  # epochs x steps of 32 pairs
COMPILE_SECONDS = 25.0  # what a compiled cell takes when its kernels are in the cache
COLD_COMPILE_SECONDS = 75.0


@dataclass(frozen=True)
class Cell:
    """One setting of the grid."""

    work: str  # inference or training
    size: str
    batch: int
    precision: str  # 'default': what a user gets without the flag
    layout: str
    mode: str

    @property
    def compiled(self) -> bool:
        return self.mode != "eager"

    def flags(self, quick: bool) -> list[str]:
        flags = [*LAYOUTS[self.layout], *MODES_OF_COMPILATION[self.mode]]
        if self.precision != "default":
            flags.append(f"--precision={self.precision}")
        if self.work == "training":
            flags.append("--init_type=normal")
        if quick:
            flags += TINY_TRAINING if self.work == "training" else TINY_GENERATOR
        return flags

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))


def grid(context: Context) -> list[Cell]:
    """All cells, the most important ones first."""
    works, layouts = ("training", "inference"), ("channels_last", "contiguous")
    if context.quick:
        return [Cell(*cell, "eager") for cell in product(works, context.sizes, (1,), ("fp32",), layouts)]
    cells = product(works, context.sizes, (32, 8, 1), PRECISIONS, layouts, MODES_OF_COMPILATION)
    return sorted((Cell(*cell) for cell in cells), key=rank)


def rank(cell: Cell) -> int:
    """The lower, the more important. Sorting is stable, so cells of one rank stay in the order of `product`."""
    fast, market = cell.precision != "fp32", cell.size == "128x64"
    if cell.work == "training" and cell.batch == 32 and fast:
        if cell.mode == "eager":
            return 0
        if cell.layout == "channels_last":
            return 1 if cell.mode == "compile" else 2 if market else 6
        return 4 if cell.mode == "compile" else 7
    if cell.work == "inference" and cell.precision == "bf16" and cell.batch != 8:
        if cell.mode == "eager":
            return 3
        return 5 if cell.layout == "channels_last" else 8
    if cell.work == "training" and cell.batch == 32:
        return 6 if cell.mode == "eager" else 10
    return 9 if cell.mode == "eager" else 11


def build_cell(cell: Cell, device: torch.device, quick: bool) -> tuple[BaseModel, Callable[[], None]]:
    """The model of a cell, and a function that makes one call of it, from the loader's batch on."""
    torch.compiler.reset()
    torch.manual_seed(0)
    model = build(cell.work, MODES[cell.size], cell.flags(quick), device)
    return model, one_call(model, host_batch(cell.batch, cell.size, device))


def host_batch(batch: int, size: str, device: torch.device) -> dict[str, Any]:
    """A random batch in pinned memory, as a loader gives it."""
    tensors = random_batch(batch, MODES[size])
    return {name: x.pin_memory() for name, x in tensors.items()} if device.type == "cuda" else tensors


def free_memory(device: torch.device) -> None:
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


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


def count_kernels(run: Callable[[], object], device: torch.device) -> Row:
    """Kernels of a call, calls of the driver that launch them (a CUDA graph is one), milliseconds of kernels."""
    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds(run, device)
    events = profiler.events()
    kernels = [e for e in events if is_kernel(e)]
    on_host = [e for e in events if e.device_type == DeviceType.CPU]
    launches = sum("LaunchKernel" in e.name or "GraphLaunch" in e.name for e in on_host)
    busy = sum(e.time_range.elapsed_us() for e in kernels) / 1e3
    return {"kernels": len(kernels) or None, "launches": launches or None, "kernels ms": busy or None}


def is_kernel(event: Any) -> bool:
    if event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False):
        return False
    return not event.name.startswith(("Memcpy", "Memset", "Optimizer.", "Torch-Compiled", "##", "CompiledFunction"))


def gflop_of_a_pair(context: Context, work: str, size: str) -> float:
    """Operations of one pair in units of 10^9, counted once in eager mode."""
    if (work, size) not in context.gflop:
        _, run = build_cell(Cell(work, size, 1, "fp32", "contiguous", "eager"), context.device, context.quick)
        torch.backends.cudnn.benchmark = False  # trying kernels is not worth it for one call
        context.gflop[work, size] = count_gflop(run)
    return context.gflop[work, size]


def matmul_rate(context: Context, precision: str) -> float | None:
    """The measured TFLOP/s of a matrix product in a precision."""
    rates = {row["precision"]: row["TFLOP/s"] for row in context.rows("matmul")}
    if precision == "default":
        precision = "tf32" if context.device.type == "cuda" else "fp32"
    return rates.get(precision)


def measure_cell(cell: Cell, context: Context) -> Row:
    """A row of the grid; one with the reason if the cell fails, for example for lack of memory."""
    row: Row = dict(zip(("work", "size", "batch", "precision", "layout", "mode"), astuple(cell)))
    device = context.device
    free_memory(device)
    try:
        gflop = gflop_of_a_pair(context, cell.work, cell.size)
        free_memory(device)
        _model, run = build_cell(cell, device, context.quick)
        first = seconds(run, device)
        for _ in range(0 if context.quick else WARM_UP + cell.compiled):
            run()
        if device.type == "cuda":  # the first calls try kernels that need more memory
            torch.cuda.reset_peak_memory_stats(device)
        ms = milliseconds(run, device, context.quick)
        rate, peak = gflop * cell.batch / ms, matmul_rate(context, cell.precision)
        row |= {"ms": ms, "pairs/s": cell.batch / ms * 1e3, "TFLOP/s": rate, "of matmul": rate / peak if peak else None}
        if cell.work == "training" and cell.batch == 32:
            row["published hours"] = ms * PUBLISHED_STEPS[cell.size] / 3.6e6
        if device.type == "cuda":
            row["peak GB"] = torch.cuda.max_memory_allocated(device) / 1e9
        row["first call s"] = first
        row |= count_kernels(run, device)
    except Exception as error:  # the next cell may work
        row["failed"] = describe_error(error)
    return row


def measure_grid(context: Context) -> Iterator[Row]:
    """Cells in the order of their importance until the part's time is used."""
    left_out = []
    for cell in grid(context):
        expected = (COMPILE_SECONDS if cell in context.warm else COLD_COMPILE_SECONDS) if cell.compiled else 5.0
        if context.left() < expected:
            left_out.append(str(cell))
            continue
        yield measure_cell(cell, context)
    if left_out:
        context.note(f"Not measured for lack of time ({len(left_out)} cells): {'; '.join(left_out)}")
    free_memory(context.device)


def training_rows(context: Context, size: str, **wanted: object) -> list[Row]:
    """Measured rows of training at the largest batch, the fastest first."""
    rows = [row for row in context.rows("grid") if row["work"] == "training" and row["size"] == size and "ms" in row]
    largest = max((row["batch"] for row in rows), default=0)
    rows = [row for row in rows if row["batch"] == largest and all(row[k] == v for k, v in wanted.items())]
    return sorted(rows, key=lambda row: row["ms"])


def best_cell(context: Context, size: str) -> Cell | None:
    rows = training_rows(context, size)
    return Cell(*(rows[0][k] for k in ("work", "size", "batch", "precision", "layout", "mode"))) if rows else None


def measure_published(context: Context) -> Iterator[Row]:
    """The published step's plain form beside ours at equal precision."""
    device, batch = context.device, 1 if context.quick else 32
    precision = "tf32" if device.type == "cuda" else "fp32"
    for size in context.sizes:
        free_memory(device)
        flags = [f"--precision={precision}", *(TINY_TRAINING if context.quick else [])]
        model = build_published(MODES[size], device, flags)
        data = with_heat_maps(random_batch(batch, MODES[size]))
        if device.type == "cuda":
            data = {name: x.pin_memory() for name, x in data.items()}
        run = one_call(model, data)
        for _ in range(0 if context.quick else WARM_UP):
            run()
        ms = milliseconds(run, device, context.quick)
        row = {"size": size, "batch": batch, "precision": precision, "published ms": ms}
        if device.type == "cuda":
            row["peak GB"] = torch.cuda.max_memory_allocated(device) / 1e9
        row |= count_kernels(run, device)
        eager = training_rows(context, size, precision=precision, mode="eager")
        best = training_rows(context, size, precision=precision)
        for title, rows in (("ours eager", eager), ("ours best", best)):
            if rows:
                row |= {f"{title} ms": rows[0]["ms"], f"{title}: times as fast": ms / rows[0]["ms"]}
                row[f"{title}: setting"] = f"{rows[0]['layout']} {rows[0]['mode']}"
        del model, run, data
        yield row


def measure_profile(context: Context) -> Iterator[Row]:
    """Time by operation of a training step: the default setting, and the fastest one that was measured."""
    batch = 1 if context.quick else 32
    on_gpu = context.device.type == "cuda"
    for size in context.sizes:
        default = Cell("training", size, batch, "default", "default", "eager")
        for title, cell in (("default", default), ("best", best_cell(context, size))):
            if cell is None or context.left() < (COMPILE_SECONDS if cell.compiled else 6):
                context.note(f"{size} {title}: not measured")
                continue
            yield from profile_cell(cell, title, context, on_gpu)
    free_memory(context.device)


def profile_cell(cell: Cell, title: str, context: Context, on_gpu: bool) -> Iterator[Row]:
    free_memory(context.device)
    _, run = build_cell(cell, context.device, context.quick)
    for _ in range(1 if context.quick else WARM_UP):
        run()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        seconds(run, context.device)
    averages = profiler.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    with open(context.out / "profile.txt", "a", encoding="utf-8") as file:
        file.write(f"{title}: {cell}\n{averages.table(sort_by=order, row_limit=25, max_name_column_width=90)}\n\n")
    wanted = [e for e in averages if not on_gpu or is_kernel_average(e)]
    total = sum(getattr(e, order) for e in wanted) or 1
    for event in sorted(wanted, key=lambda e: -getattr(e, order))[:25]:
        yield {"size": cell.size, "setting": f"{title}: {cell.precision} {cell.layout} {cell.mode}",
               "kernel": event.key[:110], "calls": event.count, "ms": getattr(event, order) / 1e3,
               "share": getattr(event, order) / total}  # fmt: skip


def is_kernel_average(event: Any) -> bool:
    return event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)


class Warmer:
    """Compiles cells in background processes: when they are timed, their kernels are in the shared cache on disk.

    Large steps share the GPU's memory, so only few of them are made at a time.
    """

    def __init__(self, cells: list[Cell]) -> None:
        self.done: set[Cell] = set()
        self.stopping = False
        self.processes: set[subprocess.Popen] = set()
        self.queues = {True: queue.SimpleQueue(), False: queue.SimpleQueue()}
        for cell in cells:
            self.queues[cell.size == "256x256"].put(cell)
        self.threads = [threading.Thread(target=self._work, args=(large,), daemon=True)
                        for large in (True, True, False, False, False)]  # fmt: skip
        for thread in self.threads:
            thread.start()

    def _work(self, large: bool) -> None:
        while not self.stopping:
            try:
                cell = self.queues[large].get_nowait()
            except queue.Empty:
                return
            fields = ",".join(map(str, astuple(cell)))
            process = start_python("-m", "scripts.benchmark.gpu_grid", fields, TORCHINDUCTOR_COMPILE_THREADS="4")
            self.processes.add(process)
            output, _ = process.communicate()
            if process.returncode == 0:
                self.done.add(cell)
            elif not self.stopping:
                print(f"  background: {cell}: {output.strip().splitlines()[-1:]}", flush=True)

    def finish(self, patience: float) -> set[Cell]:
        """Wait at most `patience` seconds, end what still runs, and return the cells that were compiled."""
        end = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.stopping = True
        for process in self.processes:
            end_process(process)
        for thread in self.threads:
            thread.join()
        return self.done


def warm(fields: list[str]) -> None:
    """Make two steps of a cell, which compiles it."""
    work, size, batch, *setting = fields
    device = torch.device("cuda", 0)
    start = time.perf_counter()
    _, run = build_cell(Cell(work, size, int(batch), *setting), device, quick=False)
    torch.backends.cudnn.benchmark = False  # trying kernels is for the process that is timed
    run()
    run()
    torch.cuda.synchronize()
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    warm(sys.argv[1].split(","))
