"""What the training loop needs besides the model: a progress bar, a check for non-finite losses, a stop signal."""

import math
import signal
import time
from collections.abc import Iterator, Sized
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from util import distributed
from util.errors import UserError, summarize


class ProgressBar:
    """Iterates a loader behind a bar: samples a second, seconds a step waiting for data and computing, time left.

    It is silent where stderr is not a terminal, and on every process but the first. Times are the host's: on a GPU,
    queued work is counted where the host next waits for it.
    """

    def __init__(self, loader: Sized, title: str, batches_done: int, batch_size: int) -> None:
        self.loader, self.batch_size = loader, batch_size
        self.bar = tqdm(
            total=len(loader) * batch_size,
            initial=batches_done * batch_size,
            desc=title,
            unit="sample",
            disable=None if distributed.is_main() else True,
            mininterval=0.5,
        )
        self._logged_at, self._samples = time.perf_counter(), 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        data_time = step_time = 0.0
        batches = iter(self.loader)
        with self.bar:
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                if batch is None:
                    return
                loaded = time.perf_counter()
                self._samples += self.batch_size
                yield batch
                # exponential averages over about ten steps
                data_time += (loaded - start - data_time) * 0.1
                step_time += (time.perf_counter() - loaded - step_time) * 0.1
                self.bar.set_postfix_str(f"data {data_time:.3f} s, step {step_time:.3f} s", refresh=False)
                self.bar.update(self.batch_size)

    def seconds_per_sample(self) -> float:
        """Average since the last call, including the current step."""
        now = time.perf_counter()
        average = (now - self._logged_at) / self._samples
        self._logged_at, self._samples = now, 0
        return average


class NonFiniteCheck:
    """Finds a NaN or infinite loss without a wait for the device at each step.

    Each step's losses stay on the device until `check` looks at all of them.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, list[str], tuple[str, ...], Tensor]] = []

    def record(self, total: int, files: list[str], losses: dict[str, Tensor]) -> None:
        """Keep a step: samples since the start, photos of this process's share, scalar losses by name."""
        self._steps.append((total, files, tuple(losses), torch.stack(list(losses.values()))))

    def check(self) -> None:
        """Raise UserError on every process if a loss since the last check was not finite. Waits for the device."""
        steps, self._steps = self._steps, []
        bad = None
        if steps and not torch.stack([values for *_, values in steps]).isfinite().all():
            bad = next(step for step in steps if not step[3].isfinite().all())
        if not distributed.maximum(bad is not None):
            return
        first = min(total for total in distributed.gather(bad and bad[0]) if total is not None)
        if bad is None or bad[0] != first:
            # Averaged gradients spread NaN to all processes; only those where it began name their photos.
            raise SystemExit(2)
        total, files, names, values = bad
        listed = ", ".join(
            f"{name} {value:.6g}" + ("" if math.isfinite(value) else " (!)")
            for name, value in zip(names, values.tolist())
        )
        raise UserError(
            f"training stopped: non-finite loss in the step that ends at {total} samples: {listed}. The last saved "
            f"state is untouched. The photos of that step:\n{summarize(files, shown=64)}"
        )


class StopReason(IntEnum):
    """Why training stops before its last epoch."""

    SIGINT = signal.SIGINT
    SIGTERM = signal.SIGTERM
    TIME_LIMIT = 1000

    @property
    def exit_status(self) -> int:
        """0 for the time limit, else 128 + the signal's number, as shells expect."""
        return 0 if self is StopReason.TIME_LIMIT else 128 + self

    def __str__(self) -> str:
        return "after --max_minutes" if self is StopReason.TIME_LIMIT else f"by signal {self.value}"


class StopSignal:
    """Lets the current step finish on SIGINT, SIGTERM or at the time limit. Use it as a context.

    A second Ctrl-C, some seconds after the first signal, raises KeyboardInterrupt.
    """

    # Seconds. torchrun sends a signal to processes that already got it with the whole group.
    REPEATED_SIGNAL = 3.0

    def __init__(self, max_minutes: float | None = None) -> None:
        self._received: StopReason | None = None
        self._received_at = 0.0
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def __enter__(self) -> "StopSignal":
        self._previous = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def reason(self) -> StopReason | None:
        """Why to stop now, the same on every process; None to continue."""
        own = self._received
        if own is None and self._deadline is not None and time.monotonic() > self._deadline:
            own = StopReason.TIME_LIMIT
        agreed = distributed.maximum(own or 0)
        return StopReason(agreed) if agreed else None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._received_at = StopReason(number), time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._received_at > self.REPEATED_SIGNAL:
            raise KeyboardInterrupt
