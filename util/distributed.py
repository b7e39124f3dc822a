"""Training in several processes that torchrun starts.

Every process holds the same weights and takes its share of each batch; gradients are averaged. Process 0 prints and
writes. In a single process the functions have nothing to do and return at once.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
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

    Messages of a training step keep torch's time limit (10 minutes with NCCL, 30 with gloo), so that processes end
    soon when one of them hangs. Process 0 alone validates and saves, and may take longer, but meanwhile the others wait
    in `maximum`, `gather` or `run_on_main`, which use the CPU group and its two hours. Processes also wait there before
    they first send weights and before they first send gradients, because one may still download or compile.
    """
    global _cpu_group
    device = select_device(gpu_ids, int(os.environ.get("LOCAL_RANK", 0)), local_processes())
    if processes() > 1 and not dist.is_initialized():
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        _cpu_group = dist.new_group(backend="gloo", timeout=timedelta(hours=2))
    yield device
    if dist.is_initialized():
        dist.destroy_process_group()


def broadcast_weights(nets: Iterable[nn.Module]) -> None:
    """Give every process the weights and buffers of process 0."""
    if dist.is_initialized():
        wait_for_processes()  # one may be downloading VGG19
        for net in nets:
            for tensor in net.state_dict().values():
                dist.broadcast(tensor, 0)


class GradientAverager:
    """Replaces the gradients of a network by their means over all processes, while the backward pass computes more.

    Parameters are divided into buckets, the last parameters first, because their gradients are ready first. When the
    backward pass has finished all gradients of a bucket, their all-reduce starts in the background. Buckets start in
    their fixed order, so that all processes send the same messages in the same order, whatever gradient is ready
    first. `finish` starts what is left, for example where some parameters have no gradients.

    With gradient accumulation, gradients are ready after the last of `backward_passes`. In a single process nothing
    is registered.

    This is what DistributedDataParallel does, without its assumption that each forward pass of a network is followed
    by one backward pass through it. Here the discriminator runs two or three times before one backward pass, runs
    frozen in the generator's step, and is differentiated by torch.autograd.grad for WGAN-GP, which
    DistributedDataParallel does not support; the generator also runs without gradients (--accumulate), and as a part
    of a compiled function.
    """

    BUCKET_BYTES = 8 * 2**20

    def __init__(self, parameters: Iterable[nn.Parameter], backward_passes: int = 1) -> None:
        self._backward_passes = backward_passes
        self._buckets: list[_Bucket] = []
        self._started = 0  # the number of buckets whose all-reduce has started in this step
        self._first_step = True
        if dist.is_initialized():
            trained = [p for p in parameters if p.requires_grad]
            self._buckets = [_Bucket(members) for members in _divide(trained[::-1], self.BUCKET_BYTES)]
        self._await_gradients()
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._gradient_changed, bucket))

    def finish(self) -> None:
        """Average all gradients of the step. Afterwards a GPU may still be computing the means."""
        self._start_buckets(len(self._buckets))
        for bucket in self._buckets:
            bucket.finish_mean()
        self._await_gradients()

    def _await_gradients(self) -> None:
        self._started = 0
        for bucket in self._buckets:
            bucket.awaited = len(bucket.parameters) * self._backward_passes

    def _gradient_changed(self, bucket: "_Bucket", _parameter: nn.Parameter) -> None:
        if bucket.all_reduce is not None:
            raise RuntimeError(f"a gradient changed while it was averaged, after {self._backward_passes} backward()")
        bucket.awaited -= 1
        ready = self._started
        while ready < len(self._buckets) and self._buckets[ready].awaited == 0:
            ready += 1
        self._start_buckets(ready)

    def _start_buckets(self, end: int) -> None:
        if self._first_step and end:
            wait_for_processes()  # one may still be compiling
            self._first_step = False
        for bucket in self._buckets[self._started : end]:
            bucket.start_sum()
        self._started = end


class _Bucket:
    """Some parameters, and a buffer for their gradients, which one all-reduce sums over the processes."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.awaited = 0  # changes of gradients until all are ready
        self.all_reduce: dist.Work | None = None
        sizes = [p.numel() for p in parameters]
        self._buffer = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        # views in each parameter's own memory format, so that copies are plain
        self._views = [
            part.as_strided(p.size(), p.stride(), part.storage_offset())
            for p, part in zip(parameters, self._buffer.split(sizes))
        ]

    def start_sum(self) -> None:
        views, gradients = self._views_and_gradients()
        if len(gradients) < len(self.parameters):
            self._buffer.zero_()  # a missing gradient counts as zero, so that messages always have the same length
        if gradients:
            torch._foreach_copy_(views, gradients)
        self.all_reduce = dist.all_reduce(self._buffer, async_op=True)

    def finish_mean(self) -> None:
        self.all_reduce.wait()  # with NCCL the GPU waits, not this thread
        self.all_reduce = None
        self._buffer /= processes()
        views, gradients = self._views_and_gradients()
        if gradients:
            torch._foreach_copy_(gradients, views)

    def _views_and_gradients(self) -> tuple[list[Tensor], list[Tensor]]:
        present = [(view, p.grad) for view, p in zip(self._views, self.parameters) if p.grad is not None]
        return [view for view, _ in present], [gradient for _, gradient in present]


def _divide(parameters: list[nn.Parameter], most_bytes: int) -> list[list[nn.Parameter]]:
    """Consecutive lists of at most `most_bytes` each, or of one larger parameter."""
    lists: list[list[nn.Parameter]] = []
    free = 0
    for parameter in parameters:
        if parameter.nbytes > free:
            lists.append([])
            free = most_bytes
        lists[-1].append(parameter)
        free -= parameter.nbytes
    return lists


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


def wait_for_processes() -> None:
    """Return when all processes have called this. Waits as long as process 0 may take to validate."""
    maximum(0)


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
