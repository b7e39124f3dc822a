"""Training in several processes that torchrun starts.

Every process holds the same weights and takes its share of each batch; gradients are averaged. Process 0 prints and
writes. In a single process the functions have nothing to do and return at once.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.device import select_device
from util.errors import UserError

_cpu_group: dist.ProcessGroup | None = None  # a group on the CPU, so that small messages never wait for a GPU


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def local_processes() -> int:  # on this machine
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_main() -> bool:
    return rank() == 0


@contextmanager
def process_group(gpu_ids: str | None) -> Iterator[torch.device]:
    """Join the other processes if torchrun started several. Yields this process's device.

    All processes leave the group together at the end. After an error a process just ends, and torchrun ends the others.
    Raises UserError if --gpu_ids names a GPU that does not exist, or several for one process.
    """
    global _cpu_group
    device = select_device(gpu_ids, int(os.environ.get("LOCAL_RANK", 0)), local_processes())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if processes() > 1 and not dist.is_initialized():
        timeout = timedelta(hours=2)  # process 0 may validate or compile for long
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        _cpu_group = dist.new_group(backend="gloo", timeout=timeout)
    yield device
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_weights(nets: Iterable[nn.Module]) -> None:
    """Give every process the weights and buffers of process 0."""
    if dist.is_initialized():
        for net in nets:
            for tensor in net.state_dict().values():
                dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(mean.view_as(gradient))


def average_statistics(net: nn.Module) -> None:
    """Batch norm only: give every process the mean of the running statistics."""
    if dist.is_initialized():
        for name, buffer in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(mean(buffer))


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total / processes()


def maximum(value: int) -> int:
    """The largest of all processes' values. Does not wait for a GPU."""
    largest = torch.tensor(value)
    if dist.is_initialized():
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=_cpu_group)
    return int(largest)


def gather(value: object) -> list:
    """All processes' objects (plain Python and CPU tensors), in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * processes()
    dist.all_gather_object(values, value, group=_cpu_group)
    return values


def run_on_main(function: Callable[..., None], *args: Any) -> None:
    """Call `function(*args)` in process 0; the others wait for it. After a UserError all processes stop."""
    failure = None
    if is_main():
        try:
            function(*args)
        except UserError as error:
            failure = error
    if maximum(failure is not None):
        raise failure or SystemExit(2)


def check_weights(nets: dict[str, nn.Module]) -> None:
    """UserError if a network is not finite, or not the same on every process (by two sums over each tensor)."""
    for name, net in nets.items():
        # MPS has no float64
        tensors = [(t.cpu() if t.device.type == "mps" else t).double() for t in net.state_dict().values()]
        sums = torch.stack([t.sum() for t in tensors] + [t.square().sum() for t in tensors])
        everyone = gather(sums.cpu())
        if not all(other.isfinite().all() for other in everyone):
            raise UserError(
                f"training stopped: network {name} has NaN or infinite weights. They were not saved; the last saved "
                "state is untouched. A lower --lr or --precision fp32 may help"
            )
        if any(not torch.equal(other, everyone[0]) for other in everyone):
            raise UserError(
                f"training stopped: network {name} differs between processes. It was not saved; resume from the last "
                "save with --continue_train. All processes need the same versions and the same kind of processor"
            )
