"""Which device to use, and (in one place) everything that depends on the process's rank."""

import torch

from util.errors import UserError


def select_device(gpu_ids: str | None) -> torch.device:
    """The device of `--gpu_ids`: None = CUDA, else Apple's MPS, else CPU; '-1' = CPU; '0' = CUDA device 0.

    Raises UserError if the GPU asked for is not there.
    """
    if gpu_ids is None:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        ids = [int(part) for part in gpu_ids.split(",")]
    except ValueError as error:
        raise UserError(f"--gpu_ids {gpu_ids}: expected a GPU number, or -1 for the CPU") from error
    if ids == [-1]:
        return torch.device("cpu")
    if len(ids) > 1:
        raise UserError(f"--gpu_ids {gpu_ids}: one process uses one GPU; give one number")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= ids[0] < count:
        raise UserError(
            f"--gpu_ids {gpu_ids}: this machine has {count or 'no'} CUDA GPU{'s' if count != 1 else ''}"
            f"{f' (0 to {count - 1})' if count else ''}. Use --gpu_ids -1 for the CPU, or leave the flag out."
        )
    return torch.device("cuda", ids[0])


def describe_device(device: torch.device) -> str:
    """For people: 'cuda:0 (NVIDIA A100-SXM4-40GB)' or 'cpu (2 threads)'."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
