"""What all parts of the benchmark share: timing, the matrix product to compare with, random batches, and tables."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor


def print_table(rows: Iterable[Sequence[object]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Print a Markdown table and return it. Each row is printed as soon as it has been measured.

    `columns`: for each column's title, the format of its values, such as ".2f".
    """
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    table = []
    for row in rows:
        cells = (format(value, form) for value, form in zip(row, columns.values(), strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)
        table.append(row)
    return pd.DataFrame(table, columns=list(columns))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median time of `repeats` calls by the clock."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matmul_gflops(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """GFLOP/s of a size^3 matrix product."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b), 9, device) / 1e9


def random_batch(batch: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Noise in the form of a loader's batch. `size`: height and width of the images."""
    data = {}
    for role in ("source", "target"):
        data[f"{role}_image"] = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        data[f"{role}_keypoints"] = torch.randint(0, min(size), (batch, 18, 2)).float()
    return data


def speed_flags(precision: str, compiling: bool) -> list[str]:
    """The flags of train.py and test.py for one row of a table."""
    return [f"--precision={precision}", "--compile" if compiling else "--no-compile"]


def yes_no(value: bool) -> str:
    return "yes" if value else "no"
