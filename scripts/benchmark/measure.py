"""What parts of the benchmark share: timing, operations, the matrix product to compare with, tables, free memory."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
FLOP_FORMULAS = {  # up to 2.14, torch counts fused attention on GPUs only
    CPU_ATTENTION: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    CPU_ATTENTION_BACKWARD: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v),
}


def print_table(rows: Iterable[Sequence[object]], columns: Mapping[str, str]) -> None:
    """Print a Markdown table, each row when it has been measured. `columns`: title -> format of its values (".2f")."""
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    for row in rows:
        cells = (format(value, form) for value, form in zip(row, columns.values(), strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time of one call by the clock, until the device has finished."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    return median(seconds(call, device) for _ in range(repeats))


def free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def count_gflop(call: Callable[[], object]) -> float:
    """Operations of a call in units of 10^9, two for each multiply-add of a matrix product or a convolution."""
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        call()
    return counter.get_total_flops() / 1e9


def matmul_gflops(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """GFLOP/s of a size^3 matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b), 9, device) / 1e9


def speed_flags(precision: str, compiling: bool) -> list[str]:
    """The flags of train.py and test.py for one row of a table."""
    return [f"--precision={precision}", "--compile" if compiling else "--no-compile"]
