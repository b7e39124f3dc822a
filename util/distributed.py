"""Which device to use, and everything that depends on this being one of several processes (torchrun).

Every process holds the same weights and takes its share of each batch; gradients are averaged. Process 0 prints and
writes. All functions also work, and do nothing, in a single process.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from util.errors import UserError
from util.memory import keep_freed_memory

_control: dist.ProcessGroup | None = None  # a group on the CPU, so that small messages never wait for a GPU


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def local_processes() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def start(gpu_ids: str | None) -> torch.device:
    """Join the other processes, if torchrun started several, and return this one's device.

    Raises UserError if the GPU asked for is not there, or if one process is asked to use several.
    """
    global _control
    device = select_device(gpu_ids, int(os.environ.get("LOCAL_RANK", 0)), local_processes())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if processes() > 1 and not dist.is_initialized():
        patience = timedelta(hours=2)  # process 0 may validate or compile for long
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        _control = dist.new_group(backend="gloo", timeout=patience)
    return device


def finish() -> None:
    """Leave the group. Only where all processes arrive: a failed one just ends, and torchrun ends the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def select_device(gpu_ids: str | None, local_rank: int = 0, local_processes: int = 1) -> torch.device:
    """The device of `--gpu_ids` for process `local_rank` of `local_processes` on this machine.

    None = CUDA, else Apple's MPS, else CPU; '-1' = CPU; '0' = CUDA device 0; '0,1' = one GPU a process of torchrun.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu_ids is None:
        if not count:
            mps = torch.backends.mps.is_available() and processes() == 1
            return torch.device("mps") if mps else _cpu()
        ids = list(range(count)) if local_processes > 1 else [0]
    else:
        try:
            ids = [int(part) for part in gpu_ids.split(",")]
        except ValueError as error:
            raise UserError(f"--gpu_ids {gpu_ids}: expected GPU numbers such as 0, or -1 for the CPU") from error
        if ids == [-1]:
            return _cpu()
        if any(not 0 <= number < count for number in ids):
            raise UserError(
                f"--gpu_ids {gpu_ids}: this machine has {count or 'no'} CUDA GPU{'s' if count != 1 else ''}"
                f"{f' (0 to {count - 1})' if count else ''}. Use --gpu_ids -1 for the CPU, or leave the flag out."
            )
    if local_processes == 1 and len(ids) > 1:
        command = shlex.join(["torchrun", f"--nproc_per_node={len(ids)}", *sys.argv])
        raise UserError(f"--gpu_ids {gpu_ids}: one process uses one GPU. For several, run:\n  {command}")
    if local_processes > len(ids):
        raise UserError(f"torchrun started {local_processes} processes here, but there are {len(ids)} GPUs for them")
    return torch.device("cuda", ids[local_rank])


def _cpu() -> torch.device:
    keep_freed_memory()
    return torch.device("cpu")


def fast_bf16(device: torch.device, size: int = 1024, repeats: int = 5) -> bool:
    """Whether bf16 is worth it: a matrix product in it is at least 1.3 times as fast as in fp32, measured here."""
    if device.type == "mps":
        return False  # models compute in fp32 there
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(size, size, device=device, dtype=dtype)
        times = []
        for _ in range(repeats + 1):  # the first is for starting up
            start = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for the device
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return seconds[torch.float32] > 1.3 * seconds[torch.bfloat16]


def describe_device(device: torch.device) -> str:
    """For people: 'cuda:0 (NVIDIA A100-SXM4-40GB)' or 'cpu (2 threads)', and how many processes."""
    name = str(device)
    if device.type == "cuda":
        name += f" ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        name += f" ({torch.get_num_threads()} threads)"
    return name if processes() == 1 else f"{name}, one of {processes()} processes"


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
                dist.all_reduce(buffer)
                buffer /= processes()


def mean(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / processes()


def maximum(value: int) -> int:
    """The largest of every process's number. Does not wait for a GPU."""
    if not dist.is_initialized():
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=_control)
    return int(largest)


def gather(value: object) -> list:
    """Every process's object (plain Python and CPU tensors), in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * processes()
    dist.all_gather_object(values, value, group=_control)
    return values


def run_on_main(work: Callable[[], None]) -> None:
    """Process 0 works, the others wait for it; if it meets a UserError, all stop."""
    failure = None
    if is_main():
        try:
            work()
        except UserError as error:
            failure = error
    if maximum(failure is not None):
        raise failure or SystemExit(2)


def check_weights(nets: dict[str, nn.Module]) -> None:
    """UserError if a network is not finite, or not the same on every process (by two sums over each tensor)."""
    for name, net in nets.items():
        tensors = [  # MPS has no float64
            (tensor.cpu() if tensor.device.type == "mps" else tensor).double() for tensor in net.state_dict().values()
        ]
        sums = torch.stack([t.sum() for t in tensors] + [t.square().sum() for t in tensors])
        everyone = gather(sums.cpu())
        if not all(other.isfinite().all() for other in everyone):
            raise UserError(
                f"training stopped: network {name} has NaN or infinite weights. They were not saved; the last saved "
                "state is untouched. A lower --lr, or --precision fp32, may help"
            )
        if any(not torch.equal(other, everyone[0]) for other in everyone):
            raise UserError(
                f"training stopped: network {name} differs between processes. It was not saved; go on from the last "
                "save with --continue_train. All processes need the same versions and the same kind of processor"
            )
