"""What an evaluation writes: tables (console and web pages), a JSON line for each protocol, a csv row for each pair."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from data.pairs import Pair
from metrics.bootstrap import LEVEL, Interval, interval
from metrics.evaluation import METRICS, Evaluation, Measurements
from metrics.pairing import Sample
from metrics.protocols import PROTOCOLS
from metrics.reid_ranking import PROTOCOL as REID
from metrics.reid_ranking import SCORES
from util.errors import UserError
from util.files import append_text, check_writable, write_text
from util.packages import require_package

PUBLISHED = Path(__file__).with_name("published.csv")  # numbers that papers print, and where each comes from
ALL_METRICS = {**METRICS, **SCORES}


def results_table(measurements: Measurements) -> pd.DataFrame:
    """Text cells: a row for each metric, four columns for each protocol, and one more with intervals."""
    blocks = []
    for protocol, by_metric in measurements.items():
        rows = {}
        for metric, measured in by_metric.items():
            value = "not measured" if measured.value is None else f"{measured.value:.6f}"
            spread = ["" if x is None else f"{x:.3g}" for x in (measured.variance, measured.standard_error)]
            rows[title(metric)] = [value, *spread, _count(measured.n, measured.n_real), _interval(measured.interval)]
        columns = [protocol, "variance", "std. error", "n", f"{LEVEL} % interval"]
        block = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        blocks.append(block if any(measured.interval for measured in by_metric.values()) else block.iloc[:, :-1])
    return pd.concat(blocks, axis=1)


def format_table(table: pd.DataFrame) -> str:
    """Text in columns with two spaces between them; the index is left-aligned, the cells are right-aligned."""
    numbered = table.set_axis(range(table.shape[1]), axis="columns")  # column names may come twice
    widths = [1 + max(map(len, (name, *numbered[number]))) for number, name in enumerate(table)]
    text = numbered.rename_axis(columns="metric").to_string(header=list(table), col_space=widths)
    return "\n".join(line.rstrip() for line in text.splitlines())


def title(metric: str) -> str:
    return f"{metric} {'↑' if ALL_METRICS[metric].higher_is_better else '↓'}"


def remarks(measurements: Measurements) -> list[str]:
    """Why some metrics were not measured, and what made some infinite or undefined."""
    named = [
        (f"{metric} ({protocol})", measurement)
        for protocol, by_metric in measurements.items()
        for metric, measurement in by_metric.items()
    ]
    reasons = [f"not measured: {name}: {measurement.reason}" for name, measurement in named if measurement.reason]
    return reasons + [f"{name}: {measurement.note}" for name, measurement in named if measurement.note]


def _count(n: int, n_real: int | None) -> str:
    return f"{n:,}" if n_real is None else f"{n:,} vs {n_real:,}"


def _interval(limits: Interval | None) -> str:
    return "{:.4f} to {:.4f}".format(*limits) if limits else ""


def difference_table(first: Evaluation, second: Evaluation) -> pd.DataFrame:
    """Text cells: for each protocol and metric both values, `first` - `second` with its interval, and which is better.

    `better` is '-' where the interval contains 0.
    """
    both = first.draws.keys() & second.draws.keys()
    keys = [(protocol, metric) for protocol in first.measurements for metric in METRICS if (protocol, metric) in both]
    rows = []
    for protocol, metric in keys:
        a, b = (evaluation.measurements[protocol][metric].value for evaluation in (first, second))
        limits = interval(a - b, first.draws[protocol, metric] - second.draws[protocol, metric])
        first_is_better = (a > b) == METRICS[metric].higher_is_better
        better = "-" if limits[0] <= 0 <= limits[1] else ("first" if first_is_better else "second")
        rows.append([f"{a:.6f}", f"{b:.6f}", f"{a - b:+.6f}", _interval(limits), better])
    index = [f"{title(metric)} ({protocol})" for protocol, metric in keys]
    columns = ["first", "second", "difference", f"{LEVEL} % interval", "better"]
    return pd.DataFrame(rows, index=index, columns=columns)


def check_outputs(out: Path, per_image: Path | None, page: Path | None) -> None:
    """UserError if a file of an evaluation cannot be written. `page`: the folder of its web page."""
    for path in filter(None, (out, per_image, page and page / "index.html")):
        check_writable(path)
    if page:
        require_package("dominate", "--html")


def append_records(
    path: Path, common: Mapping[str, Any], measurements: Measurements,
    switches: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:  # fmt: skip
    """One JSON line for each protocol: `common`, the protocol's switches (of PROTOCOLS if None), its measurements.

    JSON has no infinity or NaN, which are written as the texts "inf", "-inf" and "nan".
    """
    lines = []
    switches = switches or {name: protocol.switches() for name, protocol in PROTOCOLS.items()}
    for protocol, by_metric in measurements.items():
        metrics = {
            metric: {name: _jsonable(value) for name, value in asdict(measurement).items() if value is not None}
            for metric, measurement in by_metric.items()
        }
        record = {**common, "protocol": protocol, "switches": switches[protocol], "metrics": metrics}
        lines.append(json.dumps(record, allow_nan=False) + "\n")
    append_text(path, "".join(lines))


def _jsonable(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_per_image(path: Path, samples: Sequence[Sample], values: pd.DataFrame, pairs: Sequence[Pair] | None) -> None:
    """A row for each of `pairs` (without them, for each sample): source, target, generated, and a column
    PROTOCOL:METRIC for each metric, empty for what was left out."""
    scores = values.apply(lambda column: column.map(str))  # a measured NaN is "nan", not an empty cell
    scores.columns = [":".join(key) for key in scores.columns]
    table = pd.DataFrame(samples).join(scores)
    if pairs:
        table = pd.DataFrame(pairs).merge(table.drop_duplicates(["source", "target"]), how="left")
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def compare(path: Path, published: bool = False) -> str:
    """A table for each data set and protocol in a file of JSON lines, with a column for each evaluation.

    published: after them, columns of what papers print for the same data set and protocol.
    """
    tables = []
    for kind, records in read_records(path).groupby("kind", sort=False):
        if published:
            records = pd.concat([records, read_published(kind)])
        records.index = [f"[{number}]" for number in range(1, len(records) + 1)]
        keys = [f"{number} {description}" for number, description in records["description"].items()]
        table = records.reindex(columns=list(ALL_METRICS)).T.dropna(how="all").fillna("-").rename(index=title)
        tables.append("\n".join([kind, format_table(table), *keys]))
    return "\n\n".join(tables)


def read_published(kind: str) -> pd.DataFrame:
    """The numbers of PUBLISHED of a data set and protocol, a row for each method, in the form of `read_records`."""
    numbers = pd.read_csv(PUBLISHED, dtype=str)
    numbers["kind"] = [_kind(*pair, {}) for pair in zip(numbers["data_set"], numbers["protocol"])]
    rows = []
    for method, found in numbers[numbers["kind"] == kind].groupby("method", sort=False):
        sources = "; ".join(dict.fromkeys(found["source"]))
        verified = "verified" if (found["verified"] == "yes").all() else "not verified here"
        row = {"name": method, "kind": kind, "description": f"{method}: published, {verified} ({sources})"}
        rows.append(row | dict(zip(found["metric"], found["value"])))
    return pd.DataFrame(rows)


def read_records(path: Path) -> pd.DataFrame:
    """The evaluations in a file of JSON lines, a row each: name, kind (data set and protocol), description, and a text
    cell for each metric that was asked for.

    UserError where a line is not of an evaluation, or its protocol has other switches.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--compare {path}: cannot be read ({error})") from error
    if not lines:
        raise UserError(f"--compare {path}: no evaluation in it")
    return pd.DataFrame([_read_record(line, f"--compare {path}, line {n}") for n, line in enumerate(lines, start=1)])


def _read_record(line: str, where: str) -> dict[str, str]:
    try:
        record = json.loads(line)
        name, protocol, switches = record["name"], record["protocol"], record["switches"]
        # what else changes the numbers: the weights of the metrics' networks, and the precision
        weights = [f"{network} {found['sha256'][:8]}" for network, found in record.get("weights", {}).items()]
        precision = [] if record.get("precision", "fp32") == "fp32" else [record["precision"]]
        row = {
            "name": name,
            "kind": _kind(record["data_set"], protocol, switches),
            "description": name
            + ": "
            + ", ".join([record["paths"]["generated"], record["time"], *weights, *precision]),
            **{metric: _comparison_cell(found) for metric, found in record["metrics"].items()},
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: not a line that an evaluation wrote ({type(error).__name__}: {error})") from error
    if protocol != REID and (protocol not in PROTOCOLS or switches != PROTOCOLS[protocol].switches()):
        raise UserError(
            f"{where}: measured with a protocol '{protocol}' of other switches ({switches}); its numbers cannot be "
            "compared with these. Evaluate again, or remove the line"
        )
    return row


def _kind(data_set: str, protocol: str, switches: Mapping[str, str]) -> str:
    """Evaluations of one kind share a table. Re-identification has switches on the command line."""
    return data_set + ", " + protocol + (f": {describe_switches(switches)}" if protocol == REID else " protocol")


def describe_switches(switches: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in switches.items())


def _comparison_cell(found: Mapping[str, Any]) -> str:
    if "value" not in found:
        return "-"
    error = f" ± {float(found['standard_error']):.2g}" if "standard_error" in found else ""
    return f"{float(found['value']):.4f}{error} (n {_count(found['n'], found.get('n_real'))})"
