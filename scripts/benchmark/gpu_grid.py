"""Times training steps and inference in every setting: processes of scripts/benchmark/gpu_worker.py take turns."""

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields

import torch

from scripts.benchmark.gpu_cells import Cell, Job, grid_jobs, later_jobs, published_jobs
from scripts.benchmark.gpu_report import Context, Row, end_process, kill, start_python
from util.worker_processes import available_cores

PUBLISHED_STEPS = {"256x256": 200 * 3186, "128x64": 200 * 8238}  # epochs x steps of 32 pairs
JOB_SECONDS = 45.0  # a job that takes longer is given up
NEEDED_SECONDS = 8.0  # a prepared job is left out if less is left
UNPREPARED_SECONDS = {False: 30.0, True: 120.0}  # and one that is not prepared, by whether it compiles
GIGABYTES_FOR_ALL = 70e9  # GPU memory that all processes take while they prepare at the same time
NAMES = [field.name for field in fields(Cell)]


class Worker:
    """A process that prepares the first models of a job, and measures the job when it is asked to."""

    def __init__(self, job: Job, context: Context) -> None:
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}  # many prepare at the same time
        if job[0].compiled:
            environment["TORCHINDUCTOR_COMPILE_THREADS"] = str(min(8, available_cores()))
        scale = "quick" if context.quick else "full"
        arguments = (context.device.type, scale, json.dumps([astuple(cell) for cell in job]))
        self.process = start_python("-m", "scripts.benchmark.gpu_worker", *arguments, with_stdin=True, **environment)
        self.messages: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self.last_line = ""  # that is no message
        self.seconds: float | None = None  # that it took to prepare
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            try:
                self.messages.put(dict(json.loads(line)))
            except (ValueError, TypeError):  # a warning or an error
                self.last_line = line.rstrip()

    def message(self, end: float) -> Row | None:
        """What it prints next; None when it has ended, or at time `end`."""
        while True:
            ended = self.process.poll() is not None
            try:
                return self.messages.get(timeout=min(0.2, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if ended or time.monotonic() >= end:
                    return None

    def is_ready(self, end: float) -> bool:
        """Wait until it is ready, at most until time `end`."""
        if self.seconds is None and (message := self.message(end)):
            self.seconds = message["ready"]
        return self.seconds is not None

    def measure(self, end: float) -> Iterator[Row]:
        """Let it measure; what it prints until time `end`. Then it ends."""
        try:
            if self.is_ready(end):
                self.process.stdin.write("measure\n")
                self.process.stdin.flush()
                while (message := self.message(end)) and "done" not in message:
                    yield message
        except BrokenPipeError:
            pass  # it has ended, and `why` tells the rest
        finally:
            end_process(self.process)

    def why(self) -> str:
        """Why it has not measured everything."""
        late = "it took too long" if self.process.returncode in (None, -signal.SIGKILL) else ""
        return "; ".join(filter(None, (late, self.last_line[:300]))) or f"status {self.process.returncode}"


def start_workers(context: Context, names: list[str]) -> None:
    """Start a process for each job of the parts `names`, where the GPU has memory for all at the same time.

    A rehearsal on a CPU starts one: each takes half a gigabyte of the computer's memory.
    """
    jobs = grid_jobs(context) if "grid" in names else []
    jobs += published_jobs(context) if "published" in names else []
    if context.device.type == "cuda" and torch.cuda.get_device_properties(0).total_memory < GIGABYTES_FOR_ALL:
        return
    context.workers = {job: Worker(job, context) for job in (jobs[:1] if context.device.type == "cpu" else jobs)}


def wait_for_workers(context: Context) -> Iterator[Row]:
    """Rows of how long each process took to prepare. Processes that do not get ready in time end."""
    for job, worker in list(context.workers.items()):
        if worker.is_ready(context.part_end):
            yield {"job": str(job[0]), "cells": len(job), "seconds": worker.seconds}
        else:
            end_process(worker.process)
            del context.workers[job]
            context.note(f"{job[0]}: not ready: {worker.why()}")


def end_workers(context: Context, jobs: Iterable[Job]) -> None:
    """End the processes of jobs that are not measured."""
    ending = [worker.process for job in jobs if (worker := context.workers.pop(job, None))]
    for process in ending:  # all at a time, because each takes a while
        kill(process)
    for process in ending:
        process.wait()


def measure_job(job: Job, context: Context) -> Iterator[Row]:
    """A row for each cell of a job, if enough time is left."""
    needed = NEEDED_SECONDS if job in context.workers else UNPREPARED_SECONDS[job[0].compiled]
    if context.left() < needed:
        context.left_out += job
        return
    end = min(context.part_end, time.monotonic() + max(JOB_SECONDS, needed))
    worker = context.workers.pop(job, None) or Worker(job, context)
    missing = set(job)
    for message in worker.measure(end):
        if "profile" in message:
            keep_profile(context, Cell(*message["cell"]), message["profile"])
        else:
            missing.discard(Cell(*(message[name] for name in NAMES)))
            yield message | rates(context, message)
    if missing:
        context.note(f"{len(missing)} of {len(job)} cells from {job[0]} on are missing: {worker.why()}")


def rates(context: Context, row: Row) -> Row:
    """What follows from the milliseconds of a call."""
    if "ms" not in row:
        return {}
    work, size, batch, ms = row["work"], row["size"], row["batch"], row["ms"]
    gflop = row.pop("GFLOP/pair", None) or context.gflop.get((work, size))
    context.gflop[work, size] = gflop
    more = {"pairs/s": batch / ms * 1e3}
    if gflop:
        more["TFLOP/s"] = gflop * batch / ms
        peak = next((r["TFLOP/s"] for r in context.rows("matmul") if r["precision"] == row["precision"]), None)
        more["of matmul"] = more["TFLOP/s"] / peak if peak else None
    if work == "training" and batch == 32:
        more["published hours"] = ms * PUBLISHED_STEPS[size] / 3.6e6
    return more


def keep_profile(context: Context, cell: Cell, profile: Row) -> None:
    """Add the kernels of a step to the cell's row, and their times to the part "profile" and to profile.txt."""
    row = next(row for row in context.rows(context.current) if all(row[n] == getattr(cell, n) for n in NAMES))
    classes, listed = profile.pop("classes", {}), profile.pop("listed", [])
    row |= {f"profile {name}" if name == "failed" else name: value for name, value in profile.items()}
    if total := sum(classes.values()):
        shares = {kind: f"{ms:.2f} ms {ms / total:.0%}" for kind, ms in classes.items()}
        context.profiles.append({"setting": str(cell), "step ms": row["ms"], **profile, **shares})
        lines = [f"{ms:10.3f} ms {calls:6} calls  {kernel}" for kernel, calls, ms in listed]
        with open(context.out / "profile.txt", "a", encoding="utf-8") as file:
            file.write("\n".join([f"{cell}: {total:.2f} ms", *lines]) + "\n\n")


def measure_grid(context: Context) -> Iterator[Row]:
    """Cells in the order of their importance until the part's time is used."""
    try:
        for job in [*grid_jobs(context), *later_jobs(context)]:
            yield from measure_job(job, context)
    finally:
        end_workers(context, grid_jobs(context))
    if context.left_out:
        cells = "; ".join(map(str, context.left_out))
        context.parts[context.current].notes.append(f"Not measured for lack of time: {cells}")


def measure_published(context: Context) -> Iterator[Row]:
    """The published step's plain form beside ours at equal precision."""
    for job in published_jobs(context):
        for row in measure_job(job, context):
            yield row | (compare_with_published(context, row) if "ms" in row else {})


def compare_with_published(context: Context, row: Row) -> Row:
    same = {"precision": row["precision"]}
    compared: Row = {}
    for title, rows in (("ours eager", training_rows(context, row["size"], mode="eager", **same)),
                        ("ours graph", training_rows(context, row["size"], mode="graph", **same)),
                        ("ours best", training_rows(context, row["size"], **same))):  # fmt: skip
        if rows:
            compared |= {f"{title} ms": rows[0]["ms"], f"{title}: times as fast": row["ms"] / rows[0]["ms"]}
            compared[f"{title}: setting"] = f"{rows[0]['layout']} {rows[0]['mode']}"
    return compared


def training_rows(context: Context, size: str, work: str = "training", **wanted: object) -> list[Row]:
    """Measured rows of training at the largest batch, the fastest first."""
    rows = [row for row in context.rows("grid") if row["work"] == work and row["size"] == size and "ms" in row]
    largest = max((row["batch"] for row in rows), default=0)
    rows = [row for row in rows if row["batch"] == largest and all(row[k] == v for k, v in wanted.items())]
    return sorted(rows, key=lambda row: row["ms"])


def report_profiles(context: Context) -> Iterator[Row]:
    """Milliseconds and shares of a training step by class of kernel, for each setting of the grid; quick to report."""
    yield from context.profiles
    if not context.profiles:
        context.note("the parts grid and published profile their training steps; without them there is nothing")
