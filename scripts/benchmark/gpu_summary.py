"""The table at the end of the GPU report: what was measured for each suspect of a careful reading of the CUDA code."""

from scripts.benchmark.gpu_cells import MODES_OF_SPEED
from scripts.benchmark.gpu_checks import TORCHRUN_TRAINING
from scripts.benchmark.gpu_grid import training_rows
from scripts.benchmark.gpu_report import Context, Row, format_value

SUSPECTS = {
    1: "fp32, tf32 and bf16 are what they say",
    2: "train.py under torchrun",
    3: "gradients averaged in a group of one process",
    4: "fused or foreach Adam",
    5: "fp32 islands in compiled bf16 code",
    6: "instance norm and memory format",
    7: "spectral norm's small kernels",
    8: "heat maps, padded channels, test.py and its loader",
    9: "exact resume with --deterministic",
    10: "compilation modes",
}


def suspects(context: Context) -> list[Row]:
    """A row for each suspect."""
    found: dict[int, list[str]] = {number: [] for number in SUSPECTS}
    found[1] += goldens(context)
    for row in context.rows("torchrun"):
        found[2 if row["command"] == TORCHRUN_TRAINING else 3].append(f"{row['command']}: {row['result']}")
    found[5].append("tests/models/test_compile.py, on a CPU")  # not measured by this benchmark
    for size in context.sizes:
        found[6] += compare(context, size, "layout", ("contiguous", "channels_last"), mode="eager")
        profiled = [row for row in training_rows(context, size, mode="eager") if row.get("kernels")]
        found[7] += [f"{size}: {row['kernels']} kernels a step, {row.get('launches')} launches" for row in profiled[:1]]
        found[10] += compare(context, size, "mode", tuple(MODES_OF_SPEED))
    found[8] += [f"{row['test.py']}: {row['images/s']:.0f} images/s" for row in context.rows("test.py")]
    for row in context.rows("resume"):
        result = row.get("failed") or f"{row['different after resuming']} of {row['tensors']} tensors differ"
        found[9].append(f"{row['flags']}: {result}")
    for row in context.rows("suspects"):
        values = [f"{name} {format_value(value)}" for name, value in row.items() if name not in ("suspect", "what")]
        found[row["suspect"]].append(f"{row['what']}: {', '.join(values)}")
    texts = {number: "; ".join(found[number]) or "not measured" for number in SUSPECTS}
    return [{"suspect": number, "what": what, "measured": texts[number]} for number, what in SUSPECTS.items()]


def goldens(context: Context) -> list[str]:
    rows = context.rows("goldens")
    judged = [row for row in rows if row["passes"] is not None]
    texts = [f"fp32: {sum(row['passes'] for row in judged)} of {len(judged)} goldens within bounds"] if judged else []
    for precision in ("fp32", "tf32", "bf16"):
        means = [r["mean"] for r in rows if r["precision"].startswith(precision) and r["distance"] == "absolute"]
        if means:
            texts.append(f"{precision}: mean error of images at most {max(means):.2g}")
    return texts


def compare(context: Context, size: str, key: str, values: tuple[str, ...], **wanted: object) -> list[str]:
    """Milliseconds of a training step by the values of one setting, the best of all others, for each precision."""
    texts = []
    for precision in ("bf16", "tf32", "fp32"):
        times = {value: training_rows(context, size, precision=precision, **wanted, **{key: value}) for value in values}
        measured = [f"{value} {rows[0]['ms']:.1f}" for value, rows in times.items() if rows]
        if len(measured) > 1:
            texts.append(f"{size} {precision}, ms a step: {', '.join(measured)}")
    return texts
