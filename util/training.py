"""What the training loop needs besides the model: a progress bar, a check for non-finite losses, a stop signal."""

import math
import signal
import time
from collections.abc import Iterator
from enum import IntEnum
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from util import distributed
from util.errors import UserError, summarize
from util.worker_processes import STOP_SIGNALS


class ProgressBar:
    """Iterates over a PairLoader and shows samples per second, data time and step time (seconds per step), time left.

    Nothing is shown where stderr is not a terminal, or in a process other than 0. Times are the host's: on a GPU,
    queued work counts where the host next waits for it.
    """

    def __init__(self, loader: Any, title: str, batches_done: int, batch_size: int) -> None:
        self.loader, self.batch_size = loader, batch_size
        size = {"total": len(loader) * batch_size, "initial": batches_done * batch_size, "unit": "sample"}
        self.bar = tqdm(desc=title, **size, mininterval=0.5, disable=None if distributed.is_main() else True)
        self._logged_at, self._samples = time.perf_counter(), 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        data_time = step_time = 0.0  # exponential averages over about ten steps
        finished = time.perf_counter()
        with self.bar:
            for batch in self.loader:
                loaded = time.perf_counter()
                data_time += (loaded - finished - data_time) * 0.1
                self._samples += self.batch_size
                yield batch
                finished = time.perf_counter()
                step_time += (finished - loaded - step_time) * 0.1
                self.bar.set_postfix_str(f"data {data_time:.3f} s, step {step_time:.3f} s", refresh=False)
                self.bar.update(self.batch_size)

    def seconds_per_sample(self) -> float:
        """Average since the last call, including the current step."""
        now = time.perf_counter()
        average = (now - self._logged_at) / self._samples
        self._logged_at, self._samples = now, 0
        return average


class _Step(NamedTuple):
    total: int  # samples since the start
    photos: list[str]  # of this process's share
    loss_names: list[str]
    losses: Tensor  # (len(loss_names),)


class NonFiniteCheck:
    """Finds NaN or infinite losses. They stay on the device until `check`, so that steps need not wait for it."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def record(self, total: int, photos: list[str], losses: dict[str, Tensor]) -> None:
        """Keep a step: samples since the start, photos of this process's share, scalar losses by name."""
        self._steps.append(_Step(total, photos, list(losses), torch.stack(list(losses.values()))))

    def check(self) -> None:
        """Stop every process if a loss since the last check was not finite. Waits for the device.

        UserError, which names the photos, where the first such loss was found; SystemExit(2) in the other processes.
        """
        steps, self._steps = self._steps, []
        bad = None
        if steps and not torch.stack([step.losses for step in steps]).isfinite().all():
            bad = next(step for step in steps if not step.losses.isfinite().all())
        first = min(distributed.gather(bad.total if bad else math.inf))
        if first == math.inf:
            return
        if bad is None or bad.total != first:  # averaged gradients spread NaN; only where it began are the photos named
            raise SystemExit(2)
        losses = zip(bad.loss_names, bad.losses.tolist())
        listed = ", ".join(f"{name} {value:.6g}{'' if math.isfinite(value) else ' (!)'}" for name, value in losses)
        raise UserError(
            f"training stopped: non-finite loss in the step that ends at {bad.total} samples: {listed}. The last saved "
            f"state is untouched. The photos of that step:\n{summarize(bad.photos, shown=64)}"
        )


class StopReason(IntEnum):
    """Why training stops before its last epoch. Where processes have different reasons, the largest holds.

    A signal outranks the time limit, because a script that starts the next run after status 0 must not do so after
    the user has interrupted this one.
    """

    TIME_LIMIT = -2
    OUTPUT_FAILED = -1
    SIGHUP = signal.SIGHUP
    SIGINT = signal.SIGINT
    SIGUSR1 = signal.SIGUSR1
    SIGUSR2 = signal.SIGUSR2
    SIGTERM = signal.SIGTERM

    @property
    def exit_status(self) -> int:
        """0 for the time limit, 2 as for all user errors, else 128 + the signal's number, as shells expect."""
        return {StopReason.TIME_LIMIT: 0, StopReason.OUTPUT_FAILED: 2}.get(self, 128 + self)

    def __str__(self) -> str:
        texts = {StopReason.TIME_LIMIT: "after --max_minutes", StopReason.OUTPUT_FAILED: "by the error above"}
        return texts.get(self, f"by signal {self.value}")


class StopSignal:
    """A context in which the STOP_SIGNALS and the time limit let the current step finish; see `reason`.

    A second Ctrl-C, at least REPEATED_SIGNAL_SECONDS after the first signal, ends the process at once. SIGHUP stays
    ignored if it is, as `nohup` wants. After a signal the handlers stay, because the process ends then.

    Several processes must stop at the same step, but a message at every step would make each wait for the slowest.
    They agree at the first step, and then about once in AGREEMENT_SECONDS: at each agreement they exchange the mean
    time of their steps since the last one, and the slowest determines the number of steps to the next, MOST_STEPS at
    most. All processes count the same steps, so that they always agree at the same one.
    """

    REPEATED_SIGNAL_SECONDS = 3.0  # torchrun repeats a signal that its processes received already
    AGREEMENT_SECONDS = 1.0
    MOST_STEPS = 100

    def __init__(self, max_minutes: float | None = None) -> None:
        self._received: StopReason | None = None
        self._agreed_at, self._steps, self._interval = time.monotonic(), 0, 1
        self._deadline = math.inf if max_minutes is None else self._agreed_at + 60 * max_minutes

    def __enter__(self) -> "StopSignal":
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        numbers = [number for number in STOP_SIGNALS if not (nohup and number == signal.SIGHUP)]
        self._previous = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        if self._received is None:  # else a repeated signal must not interrupt the end of the process
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def reason(self, output_failed: bool = False) -> StopReason | None:
        """Why to stop now, the same on every process; None to continue. Call it once after each step.

        `output_failed`: whether this process had to give up its logs.
        """
        time_limit = StopReason.TIME_LIMIT if time.monotonic() > self._deadline else None
        failure = StopReason.OUTPUT_FAILED if output_failed else None
        own = _strongest(time_limit, failure, self._received)
        if distributed.processes() == 1:
            return own
        self._steps += 1
        return self._agree(own) if self._steps >= self._interval else None

    def _agree(self, own: StopReason | None) -> StopReason | None:
        step_time = (time.monotonic() - self._agreed_at) / self._steps
        reasons, step_times = zip(*distributed.gather((own, step_time)))
        self._interval = min(max(round(self.AGREEMENT_SECONDS / max(*step_times, 1e-9)), 1), self.MOST_STEPS)
        self._agreed_at, self._steps = time.monotonic(), 0
        agreed = _strongest(*reasons)
        if self._received is None and agreed is not None and agreed > 0:  # another process got the signal
            self._received, self._received_at = agreed, time.monotonic()
        return agreed

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._received_at = StopReason(number), time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._received_at > self.REPEATED_SIGNAL_SECONDS:
            raise SystemExit("stopped at once by a second Ctrl-C; the last saved state is untouched")


def _strongest(*reasons: StopReason | None) -> StopReason | None:
    return max((reason for reason in reasons if reason is not None), default=None)
