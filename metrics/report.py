"""What an evaluation leaves behind: a table, a JSON line for each protocol, a csv with a row for each pair."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from metrics.evaluation import METRICS, Measurement
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from util.errors import UserError
from util.files import write_whole

Rows = list[list[str]]


def result_rows(results: Mapping[tuple[str, str], Measurement]) -> Rows:
    """A header and a row for each metric; each protocol has columns of its own."""
    protocols, metrics = (list(dict.fromkeys(key[part] for key in results)) for part in (0, 1))
    header = ["metric"]
    for protocol in protocols:
        header += [protocol, "variance", "std. error", "n"]
    rows = [header]
    for metric in metrics:
        row = [title(metric)]
        for protocol in protocols:
            row += _cells(results[protocol, metric])
        rows.append(row)
    return rows


def title(metric: str) -> str:
    return f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}"


def reasons(results: Mapping[tuple[str, str], Measurement]) -> list[str]:
    """Why some metrics were not measured."""
    return [f"{metric} ({protocol}): {m.reason}" for (protocol, metric), m in results.items() if m.reason]


def _cells(measurement: Measurement) -> list[str]:
    if measurement.value is None:
        return ["not measured", "", "", "0"]
    spread = [
        "" if number is None else f"{number:.3g}" for number in (measurement.variance, measurement.standard_error)
    ]
    return [f"{measurement.value:.6f}", *spread, _count(measurement.n, measurement.n_real)]


def _count(n: int, n_real: int | None) -> str:
    return f"{n:,}" if n_real is None else f"{n:,} vs {n_real:,}"


def as_table(rows: Rows) -> str:
    """Text in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def append_records(path: Path, common: Mapping[str, Any], results: Mapping[tuple[str, str], Measurement]) -> None:
    """One JSON line for each protocol: `common`, the protocol's switches, its measurements.

    JSON knows no infinity or NaN; they are written as "inf", "-inf", "nan".
    """
    lines = []
    for protocol in dict.fromkeys(protocol for protocol, _ in results):
        metrics = {
            metric: {name: _jsonable(value) for name, value in asdict(m).items() if value is not None}
            for (owner, metric), m in results.items()
            if owner == protocol
        }
        record = {**common, "protocol": protocol, "switches": asdict(PROTOCOLS[protocol]), "metrics": metrics}
        lines.append(json.dumps(record, allow_nan=False) + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def _jsonable(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_per_image(path: Path, samples: Sequence[Sample], values: Mapping[tuple[str, str], np.ndarray]) -> None:
    """A row for each pair that was measured: source, target, generated, and a column PROTOCOL:METRIC a metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "target", "generated", *(f"{protocol}:{metric}" for protocol, metric in values)])
    for number, sample in enumerate(samples):
        numbers = [column[number] for column in values.values()]
        if not all(map(np.isnan, numbers)):
            writer.writerow([sample.source or "", sample.target, sample.generated, *map(float, numbers)])
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def compare(path: Path) -> str:
    """Tables of all evaluations in a file of JSON lines: one for each data set and protocol, a column an evaluation."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in read_records(path):
        groups.setdefault((record["data_set"], record["protocol"]), []).append(record)
    tables = []
    for (data_set, protocol), records in groups.items():
        rows = compared_rows(records, [f"[{number}]" for number in range(1, len(records) + 1)])
        keys = [
            f"[{number}] {record['name']}: {record['paths']['generated']}, {record['time']}"
            for number, record in enumerate(records, start=1)
        ]
        tables.append("\n".join([f"{data_set}, {protocol} protocol", as_table(rows), *keys]))
    return "\n\n".join(tables)


def compared_rows(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Rows:
    """A header with `names` and a row for each metric that any of `records` has; one protocol, one data set."""
    rows = [["metric", *names]]
    for metric in METRICS:
        found = [record["metrics"].get(metric) for record in records]
        if any(found):
            rows.append([title(metric), *map(_compared, found)])
    return rows


def _compared(found: Mapping[str, Any] | None) -> str:
    if not found or "value" not in found:
        return "-"
    error = f" ± {float(found['standard_error']):.2g}" if "standard_error" in found else ""
    return f"{float(found['value']):.4f}{error} (n {_count(found['n'], found.get('n_real'))})"


def read_records(path: Path) -> list[dict[str, Any]]:
    """The evaluations in a file. UserError where a line is none, or its protocol has other switches."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--compare {path}: cannot be read ({error})") from error
    records = []
    for number, line in enumerate(lines, start=1):
        where = f"--compare {path}, line {number}"
        try:
            record = json.loads(line)
            name, switches = record["protocol"], record["switches"]
            complete = {"data_set", "name", "metrics", "paths", "time"} <= set(record)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where}: not a line that an evaluation wrote") from error
        if not complete or not isinstance(name, str):
            raise UserError(f"{where}: not a line that an evaluation wrote")
        if name not in PROTOCOLS or switches != asdict(PROTOCOLS[name]):
            raise UserError(
                f"{where}: measured with a protocol '{name}' of other switches ({switches}); its numbers cannot stand "
                "beside these. Evaluate again, or take the line out"
            )
        records.append(record)
    if not records:
        raise UserError(f"--compare {path}: no evaluation in it")
    return records
