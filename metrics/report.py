"""What an evaluation leaves behind: a table, a JSON line for each protocol, a csv with a row for each pair."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.pairs import Pair
from metrics.evaluation import METRICS, Evaluation, Measurement
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from util.errors import UserError
from util.files import atomic_write

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


def remarks(results: Mapping[tuple[str, str], Measurement]) -> list[str]:
    """Why some metrics were not measured, and what made some infinite or undefined."""
    lines = [
        f"not measured: {metric} ({protocol}): {m.reason}" for (protocol, metric), m in results.items() if m.reason
    ]
    return lines + [f"{metric} ({protocol}): {m.note}" for (protocol, metric), m in results.items() if m.note]


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


def check_writable(path: Path) -> None:
    """Make the folder of `path`; UserError, before the work and not after it, where the file cannot be written."""
    new = not os.path.lexists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    if new:
        path.unlink()


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


def write_per_image(
    path: Path, samples: Sequence[Sample], evaluation: Evaluation, pairs: Sequence[Pair] | None
) -> None:
    """A row for each of `pairs` (without them, for each sample): source, target, generated, and a column
    PROTOCOL:METRIC a metric, empty for what was left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = evaluation.values
    writer.writerow(["source", "target", "generated", *(f"{protocol}:{metric}" for protocol, metric in columns)])
    numbers = {sample[:2]: number for number, sample in enumerate(samples)}
    rows = [(pair, numbers.get(pair)) for pair in pairs] if pairs else [(s[:2], n) for n, s in enumerate(samples)]
    for (source, target), number in rows:
        generated = "" if number is None else samples[number].generated
        measured = number is not None and evaluation.measured[number]
        cells = [float(column[number]) if measured else "" for column in columns.values()]
        writer.writerow([source or "", target, generated, *cells])
    atomic_write(path, lambda file: file.write(text.getvalue().encode()))


def compare(path: Path) -> str:
    """Tables of all evaluations in a file of JSON lines: one for each data set and protocol, a column an evaluation."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in read_records(path):
        groups.setdefault((record["data_set"], record["protocol"]), []).append(record)
    tables = []
    for (data_set, protocol), records in groups.items():
        rows = compared_rows(records, [f"[{number}]" for number in range(1, len(records) + 1)])
        keys = [f"[{number}] {_key(path, record)}" for number, record in enumerate(records, start=1)]
        tables.append("\n".join([f"{data_set}, {protocol} protocol", as_table(rows), *keys]))
    return "\n\n".join(tables)


def _key(path: Path, record: Mapping[str, Any]) -> str:
    """Which evaluation this is, and what else moves its numbers: weights of the metrics' networks, precision."""
    if "generated" not in record["paths"]:
        raise UserError(f"--compare {path}: '{record['name']}' of {record['time']} does not say what it evaluated")
    parts = [f"{record['name']}: {record['paths']['generated']}", record["time"]]
    parts += [f"{network} {str(weights['sha256'])[:8]}" for network, weights in record.get("weights", {}).items()]
    if (precision := record.get("precision", "fp32")) != "fp32":
        parts.append(str(precision))
    return ", ".join(parts)


def compared_rows(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Rows:
    """A header with `names` and a row for each metric that any of `records` has.

    UserError where they are not of one data set and one protocol.
    """
    if len(kinds := {(record["data_set"], record["protocol"]) for record in records}) > 1:
        kinds = ", ".join(" ".join(kind) for kind in sorted(kinds))
        raise UserError(f"evaluations of several data sets or protocols cannot stand in one table: {kinds}")
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
        except ValueError as error:
            raise UserError(f"{where}: not a line that an evaluation wrote ({error})") from error
        if wrong := _malformed(record):
            raise UserError(f"{where}: not a line that an evaluation wrote ('{wrong}' is missing or malformed)")
        name, switches = record["protocol"], record["switches"]
        if name not in PROTOCOLS or switches != asdict(PROTOCOLS[name]):
            raise UserError(
                f"{where}: measured with a protocol '{name}' of other switches ({switches}); its numbers cannot stand "
                "beside these. Evaluate again, or take the line out"
            )
        records.append(record)
    if not records:
        raise UserError(f"--compare {path}: no evaluation in it")
    return records


def _malformed(record: Any) -> str | None:
    """The first part of a record, as far as a comparison reads it, that `append_records` would not have written so."""
    if not isinstance(record, dict):
        return "protocol"
    texts, tables = ("protocol", "data_set", "name", "time"), ("switches", "paths", "metrics")
    wrong = [part for part in texts if not isinstance(record.get(part), str)]
    wrong += [part for part in tables if not isinstance(record.get(part), dict)]
    if wrong:
        return wrong[0]
    for metric, found in record["metrics"].items():
        if (
            not isinstance(found, dict)
            or not all(isinstance(count, int) for count in (found.get("n"), found.get("n_real", 0)))
            or not all(_is_number(found.get(part, 0)) for part in ("value", "standard_error"))
        ):
            return metric
    weights = record.get("weights", {})
    if not isinstance(weights, dict) or not all(isinstance(w, dict) and "sha256" in w for w in weights.values()):
        return "weights"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or value in ("inf", "-inf", "nan")
