"""Counts the memory, operations and bytes moved of a training step without computing it. No GPU is needed.

    python scripts/benchmark/memory.py                       # the table of docs/scaling.md, in some minutes

torch's fake tensors have shapes but no content, so a step of any batch size takes no time. "peak" is the most that
tensors hold during a step, with weights, gradients and Adam's moments. "moved" is the size of all inputs and outputs
of all operations (without --compile), in brackets those of convolutions and matrix products. "kernels" is the number
of these operations without the optimizer's.
"""

import sys
import weakref
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from models import model_names, ops
from models.base_model import BaseModel
from scripts.benchmark.measure import count_gflop, print_table
from scripts.benchmark.networks import MODES, PUBLISHED_SIZES, build, one_call, random_batch
from util.errors import run_main

PRODUCTS = ("convolution", "mm.", "scaled_dot_product")
NO_KERNEL = ("prim.", "detach", "view", "empty")  # these read and write no data
COLUMNS = {"size": "", "precision": "", "batch": "", "accumulate": "", "GFLOP/pair": ".1f", "peak GB": ".2f",
           "moved GB (products)": "", "kernels": ","}  # fmt: skip


class Counter(TorchDispatchMode):
    """Counts the bytes that live tensors hold, and the bytes that operations read and write, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[weakref.ref, int] = {}
        self.now = self.peak = self.kernels = self.moved = self.moved_by_products = 0

    def restart(self) -> None:
        self.peak = self.now
        self.kernels = self.moved = self.moved_by_products = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in filter(torch.is_tensor, tree_iter(out)):
            storage = tensor.untyped_storage()
            reference = weakref.ref(storage, self._freed)
            if reference not in self.alive:
                self.alive[reference] = storage.nbytes()
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        name = str(function)
        if not function.is_view and not any(word in name for word in NO_KERNEL):
            size = sum(t.numel() * t.element_size() for t in filter(torch.is_tensor, tree_iter((args, kwargs, out))))
            self.kernels += 1
            self.moved += size
            self.moved_by_products += size * any(word in name for word in PRODUCTS)
        return out

    def _freed(self, reference: weakref.ref) -> None:
        self.now -= self.alive.pop(reference)


def count_step(model_name: str, size: str, precision: str, batch: int, accumulate: int) -> tuple:
    """A row of the table."""
    flags = [f"--model={model_name}", f"--precision={precision}", f"--batchSize={batch}", f"--accumulate={accumulate}"]
    flags.append("--no-channels_last")
    with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter:
        model = build("training", MODES[size], flags, torch.device("cpu"))
        step = one_call(model, random_batch(batch, MODES[size]))
        step()  # allocates gradients and Adam's moments
        counter.restart()
        gflop = count_gflop(step) / batch
        peak, moved, products = (n / 1e9 for n in (counter.peak, counter.moved, counter.moved_by_products))
        for optimizer in model.optimizers.values():
            optimizer.step = lambda: None
        counter.restart()
        step()
    return size, precision, batch, accumulate, gflop, peak, f"{moved:.0f} ({products:.0f})", counter.kernels


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--sizes", choices=list(MODES), nargs="+", default=PUBLISHED_SIZES, help="H x W of the images")
    parser.add_argument("--model", choices=model_names(), default="DPTN")
    args = parser.parse_args()
    settings = product(args.sizes, ("fp32", "bf16"), ((32, 1), (32, 4), (4, 1)))
    with (
        patch.object(BaseModel, "prepare", lambda _, net: net.train()),  # without a move, which fake weights refuse
        patch.dict(ops.SLOW_IF_FUSED, cpu=ops.SLOW_IF_FUSED["cuda"]),  # attention as on a GPU
    ):
        print_table((count_step(args.model, size, precision, *batch) for size, precision, batch in settings), COLUMNS)


if __name__ == "__main__":
    run_main(main)
