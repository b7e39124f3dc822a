"""What scripts/benchmark/gpu.py shares between its parts: time, files, the report, and processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from util.errors import first_line
from util.files import write_text

REPOSITORY = Path(__file__).resolve().parent.parent.parent
Row = dict[str, Any]
TINY_GENERATOR = ["--ngf=8", "--layers_g=2", "--num_blocks=1", "--num_CABs=1", "--num_TTBs=1"]
TINY_TRAINING = [*TINY_GENERATOR, "--ndf=8"]
NO_VGG = ["--lambda_content=0", "--lambda_style=0"]
NAMELESS = ("work", "size", "batch", "precision", "layout", "mode", "what", "value")  # columns whose values say enough
NOT_PRINTED = (*NAMELESS, "first call s", "reserved GB", "kernels ms")


class PartTimeout(BaseException):
    """A part used up its time. It is no Exception, because compilers and cells survive those."""


@dataclass
class PartReport:
    """What one part measured: rows of a table, notes, seconds, and the traceback if it failed."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    traceback: str | None = None


@dataclass
class Context:
    """What a part gets."""

    device: torch.device
    quick: bool  # tiny networks and sizes, each step timed once
    out: Path
    scratch: Path  # an empty folder for everything that is not reported
    sizes: list[str]  # "256x256", "128x64"
    end: float  # time.monotonic() at which the whole benchmark ends
    parts: dict[str, PartReport] = field(default_factory=dict)
    current: str = ""
    part_end: float = 0.0
    people: Path | None = None  # data root of Market-1501's layout; None until they are rendered
    gflop: dict[tuple[str, str], float | None] = field(default_factory=dict)  # of a pair, by work and size
    workers: dict[tuple, Any] = field(default_factory=dict)  # by job: processes that prepare it or are ready
    profiles: list[Row] = field(default_factory=list)  # of training steps, by class of kernel
    left_out: list[Any] = field(default_factory=list)  # cells for which too little time was left

    def left(self) -> float:
        """Seconds until the current part must end."""
        return self.part_end - time.monotonic()

    def rows(self, part: str) -> list[Row]:
        """What a part has measured so far."""
        return self.parts[part].rows if part in self.parts else []

    def note(self, text: str) -> None:
        """Print a line, which the report repeats below the current part's table."""
        print(text, flush=True)
        self.parts[self.current].notes.append(text)

    @property
    def gpu_flag(self) -> str:
        """The flag that makes train.py and test.py use the same device."""
        return "--gpu_ids=-1" if self.device.type == "cpu" else f"--gpu_ids={self.device.index or 0}"

    def write(self, suspects: Sequence[Row]) -> None:
        """Write report.json and report.md with everything measured so far."""
        content = {"parts": {name: vars(part) for name, part in self.parts.items()}, "suspects": list(suspects)}
        write_text(self.out / "report.json", json.dumps(content, indent=1, default=str))
        sections = ["# Measured by scripts/benchmark/gpu.sh"]
        for name, part in self.parts.items():
            sections += [f"## {name} ({part.seconds:.0f} s)", markdown_table(part.rows), *part.notes]
        sections += ["## What was measured for each suspect", markdown_table(suspects)]
        write_text(self.out / "report.md", "\n\n".join(filter(None, sections)) + "\n")


def markdown_table(rows: Sequence[Row]) -> str:
    """A table with all columns that any row has, in the order in which they appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(format_value(row.get(name)) for name in columns)} |" for row in rows]
    return "\n".join(lines)


def format_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


def print_row(row: Mapping[str, Any]) -> None:
    """Print a row in one short line."""
    setting = [format_value(row[name]) for name in NAMELESS if row.get(name) is not None]
    values = [f"{name} {format_value(x)}" for name, x in row.items() if x is not None and name not in NOT_PRINTED]
    print(f"  {' '.join(setting)}{': ' if setting and values else ''}{', '.join(values)}", flush=True)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise PartTimeout in the main thread after `seconds`."""

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise PartTimeout(f"stopped after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def start_python(*arguments: object, with_stdin: bool = False, **environment: str) -> subprocess.Popen:
    """Start this Python in the repository's root, in a process group of its own, with its output in a pipe.

    `with_stdin`: its standard input is a pipe too.
    """
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE if with_stdin else None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def end_process(process: subprocess.Popen) -> None:
    """End a process that `start_python` started, and its children."""
    kill(process)
    process.wait()


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def run_python(*arguments: object, timeout: float) -> str:
    """The output of this Python with `arguments`; RuntimeError with its last lines if it fails."""
    process = start_python(*arguments)
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        end_process(process)
    if process.returncode:
        lines = output.strip().splitlines() or [""]
        command = " ".join(map(str, arguments[:3]))
        raise RuntimeError(f"{command}: status {process.returncode}: {lines[-1]}\n{output[-3000:]}")
    return output


def describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"[:300]
