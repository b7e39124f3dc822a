"""A progress bar over training batches that tells waiting for data from computing."""

import time
from collections.abc import Iterator, Sized
from typing import Any

from tqdm import tqdm

from util import distributed


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
