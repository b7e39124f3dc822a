"""What the training loop needs besides the model: progress bar, check for non-finite losses, stop signal."""

import math
import signal
import time
from collections.abc import Iterator, Sized
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from util import distributed
from util.errors import UserError, summarize


class Steps:
    """Iterates a loader of batches; shows epoch, samples a second, seconds a step for data and for the rest, ETA.

    Quiet when stderr is not a terminal, and on every process but the first. Times are the host's: on a GPU, work still
    queued is counted where the host next waits for it.
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
        waited = worked = 0.0
        batches = iter(self.loader)
        with self.bar:
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                if batch is None:
                    return
                ready = time.perf_counter()
                yield batch
                # smoothed over about ten steps
                waited += (ready - start - waited) * 0.1
                worked += (time.perf_counter() - ready - worked) * 0.1
                self._samples += self.batch_size
                self.bar.set_postfix_str(f"data {waited:.3f} s, step {worked:.3f} s", refresh=False)
                self.bar.update(self.batch_size)

    def seconds_per_sample(self) -> float:
        """Mean since the last call, the current step included."""
        now, samples = time.perf_counter(), self._samples + self.batch_size
        mean = (now - self._logged_at) / samples
        self._logged_at, self._samples = now, -self.batch_size
        return mean


class NonFiniteCheck:
    """Keeps each step's losses on the device until `check` looks at them all at once."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, list[str], tuple[str, ...], Tensor]] = []

    def record(self, total: int, files: list[str], losses: dict[str, Tensor]) -> None:
        """`total` samples since the start, the photos of this process's share, scalar losses by name."""
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
        if bad is None or bad[0] != first:  # averaged gradients spread it: only where it began are the photos to blame
            raise SystemExit(2)
        total, files, names, values = bad
        listed = ", ".join(
            f"{n} {v:.6g}" + ("" if math.isfinite(v) else " (!)") for n, v in zip(names, values.tolist())
        )
        raise UserError(
            f"training stopped: non-finite loss in the step that ends at {total} samples: {listed}. The last saved "
            f"state is untouched. The photos of that step:\n{summarize(files, shown=64)}"
        )


TIME_UP = 1000  # in the place of a signal's number
PATIENCE = 3.0  # seconds; torchrun sends on to its processes what the whole group already got


class StopSignal:
    """The first signal that comes, or the end of `max_minutes`. A Ctrl-C some seconds after a signal stops at once."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.number, self._at = 0, 0.0
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}

    def wanted(self) -> int:
        """The signal's number, TIME_UP, or 0 to go on."""
        late = self._deadline is not None and time.monotonic() > self._deadline
        return self.number or (TIME_UP if late else 0)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:
            self.number, self._at = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._at > PATIENCE:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Back to the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
