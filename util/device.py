"""Which device to compute on, in which precision, and what the CPU's memory allocator does."""

import ctypes
import os
import shlex
import sys
import time

import torch

from util.errors import UserError

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}  # and the dtype of activations


def select_device(gpu_ids: str | None, local_rank: int = 0, local_processes: int = 1) -> torch.device:
    """The device of `--gpu_ids` for process `local_rank` of `local_processes` on this machine.

    None: CUDA, else Apple's MPS, else the CPU. '-1': the CPU. '0': CUDA device 0. '0,1': a GPU for each process.
    A GPU becomes CUDA's current device, or else some calls would also take memory on GPU 0. UserError for GPUs that do
    not exist, for several GPUs and one process, and for fewer GPUs than processes.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu_ids is None:
        if not count:
            mps = torch.backends.mps.is_available() and int(os.environ.get("WORLD_SIZE", 1)) == 1
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
            gpus = f"{count} CUDA GPU{'s' if count > 1 else ''} (0 to {count - 1})" if count else "no CUDA GPUs"
            advice = "Use --gpu_ids -1 for the CPU, or leave the flag out."
            raise UserError(f"--gpu_ids {gpu_ids}: this machine has {gpus}. {advice}")
    if local_processes == 1 and len(ids) > 1:
        command = shlex.join(["torchrun", f"--nproc_per_node={len(ids)}", *sys.argv])
        raise UserError(f"--gpu_ids {gpu_ids}: one process uses one GPU. For several, run:\n  {command}")
    if local_processes > len(ids):
        raise UserError(f"torchrun started {local_processes} processes here; the number of GPUs for them is {len(ids)}")
    device = torch.device("cuda", ids[local_rank])
    torch.cuda.set_device(device)
    return device


def _cpu() -> torch.device:
    keep_freed_memory()
    return torch.device("cpu")


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed tensors, in huge pages, for the next ones instead of returning it to Linux.

    Getting fresh pages for each result takes a third of a compiled step on a CPU. Call it before the first tensor is
    made. It does nothing where the C library is not glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it when it makes its first tensor
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    library.mallopt(trim_threshold, -1)  # never return memory
    library.mallopt(mmap_max, 0)  # take large blocks from the kept memory too
    library.mallopt(arena_max, 1)  # share it between threads: backward passes run in a thread of their own


def use_precision(precision: str | None, device: torch.device) -> str:
    """Set how torch multiplies float32 matrices for `--precision`; returns the precision that is used.

    None: tf32 on CUDA, as in the published training, else fp32. UserError if the device does not have the precision.
    """
    if precision is None:
        precision = "tf32" if device.type == "cuda" else "fp32"
    if device.type == "mps" and precision != "fp32":
        raise UserError(f"--precision {precision} needs CUDA or the CPU; Apple's MPS computes in fp32 here")
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 needs a CUDA GPU; give --precision fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise UserError(
            f"--precision bf16 needs an NVIDIA GPU of compute capability 8.0 or newer (A100, RTX 30); "
            f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
        )
    # In bf16 only Gram matrices are float32 products: their features come in bfloat16, so nothing is lost.
    exact = precision == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "medium" if device.type == "cpu" else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    return precision


def fast_bf16(device: torch.device, size: int = 1024) -> bool:
    """Measure whether a matrix product is at least 1.3 times as fast in bf16 as in fp32. False on MPS."""
    if device.type == "mps":
        return False  # models compute in fp32 there
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(size, size, device=device, dtype=dtype)
        times = []
        for _ in range(6):  # the first run warms up
            start = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for the device
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return seconds[torch.float32] > 1.3 * seconds[torch.bfloat16]


def describe_device(device: torch.device) -> str:
    """A description for logs: 'cuda:0 (NVIDIA A100-SXM4-40GB)' or 'cpu (2 threads)'."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)
