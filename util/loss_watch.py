"""Finds a non-finite loss without waiting for the device at every step."""

import math

import torch
from torch import Tensor

from util import distributed
from util.errors import UserError, summarise


class LossWatch:
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
            f"state is untouched. The photos of that step:\n{summarise(files, shown=64)}"
        )
