"""metrics/report.py: tables, JSON lines, and the csv with a row for each pair."""

import json
import re

import pandas as pd
import pytest

from metrics import metrics
from metrics.evaluation import METRICS
from metrics.protocols import PROTOCOLS
from metrics.report import PUBLISHED
from tests.metrics.conftest import read_jsonl


def test_compare_prints_a_table_for_each_protocol(call, flags, results, market):
    for name, metric in (("first", "l1,psnr"), ("second", "l1")):
        call(metrics, *flags, f"--name={name}", f"--metrics={metric}", "--protocol=dptn,standard")
    done = call(metrics, f"--compare={results.parent}/metrics.jsonl")
    assert done.returncode == 0, done.stderr
    dptn, standard = done.stdout.strip().split("\n\n")
    for table, protocol in ((dptn, "dptn"), (standard, "standard")):
        title, header, *lines = table.splitlines()
        assert title == f"market, {protocol} protocol"
        assert header.split() == ["metric", "[1]", "[2]"]
        assert re.fullmatch(r"psnr ↑ +\d+\.\d{4} ± \S+ \(n 8\) +-", lines[0])
        assert re.fullmatch(r"l1 ↓( +\d+\.\d{4} ± \S+ \(n 8\)){2}", lines[1])
        assert [line.split(":")[0] for line in lines[2:]] == ["[1] first", "[2] second"]


def test_published_numbers_stand_beside_those_of_their_data_set_and_protocol_only(call, flags, results):
    call(metrics, *flags, "--name=mine", "--metrics=psnr,ssim_256", "--protocol=dptn,standard")
    done = call(metrics, f"--compare={results.parent}/metrics.jsonl", "--published")
    assert done.returncode == 0, done.stderr
    dptn, standard = done.stdout.strip().split("\n\n")
    assert standard == call(metrics, f"--compare={results.parent}/metrics.jsonl").stdout.strip().split("\n\n")[1]
    title, _, psnr, ssim_256, *lines = dptn.splitlines()
    assert title == "market, dptn protocol"
    assert [line.split()[0] for line in lines[:2]] == ["fid", "lpips"]
    assert (psnr.split()[-1], ssim_256.split()[-1]) == ("14.5207", "0.2854")
    descriptions = [line for line in lines if line.startswith("[")]
    assert len(descriptions) == 10  # ours, and the nine methods with numbers on Market-1501
    assert descriptions[-1].startswith("[10] DPTN (CVPR 22): published, not verified here")
    assert "SSIM is ssim_256 is inferred" in descriptions[-1]


def test_published_numbers_are_complete():
    """Ten methods of DPTN's Table 1, of which PISE has no numbers on Market-1501; everything has a source."""
    table = pd.read_csv(PUBLISHED)
    assert table.notna().all().all()
    assert set(table["protocol"]) <= set(PROTOCOLS)
    assert set(table["metric"]) <= set(METRICS)
    assert set(table["verified"]) <= {"yes", "no"}
    of_table = table[table["source"].str.startswith("DPTN's Table 1")]
    assert of_table.groupby("data_set")["method"].nunique().to_dict() == {"fashion": 10, "market": 9}
    assert len(of_table) == 10 * 4 + 9 * 4
    dptn = of_table[(of_table["method"] == "DPTN (CVPR 22)") & (of_table["data_set"] == "fashion")]
    assert dptn.set_index("metric")["value"].to_dict() == {
        "ssim_256": 0.7782, "psnr": 19.1492, "fid": 11.4664, "lpips": 0.1957,
    }  # fmt: skip


def test_compare_rejects_a_protocol_with_other_switches(call, flags, results):
    call(metrics, *flags, "--metrics=l1")
    file = results.parent / "metrics.jsonl"
    line = json.loads(file.read_text())
    line["switches"]["pad"] = False
    file.write_text(file.read_text() + json.dumps(line) + "\n")
    done = call(metrics, f"--compare={file}")
    assert done.returncode == 2
    assert "line 2: measured with a protocol 'dptn' of other switches" in done.stderr


def test_compare_names_weights_and_precision(call, flags, results, tiny):
    call(metrics, *flags, "--metrics=lpips,fid")
    call(metrics, *flags, "--metrics=l1", "--precision=bf16")
    weights = read_jsonl(results)[0]["weights"]
    first, second = call(metrics, f"--compare={results.parent}/metrics.jsonl").stdout.splitlines()[-2:]
    digests = [f"{network} {weights[network]['sha256'][:8]}" for network in ("torchvision", "alexnet")]
    assert first.endswith(f":00, {', '.join(digests)}")  # the time ends in its zone
    assert second.endswith(", bf16")


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("metrics", []), ("metrics", {"l1": 1}), ("metrics", {"l1": {"value": "x", "n": 1}}),
        ("metrics", {"l1": {"value": 1.0}}), ("metrics", {"fid": {"value": 1.0, "n": 1, "n_real": "inf"}}),
        ("metrics", {"l1": {"value": 1.0, "n": 1, "standard_error": []}}), ("paths", {}), ("paths", []),
        ("name", None), ("data_set", []), ("protocol", []), ("switches", 1), ("weights", []),
        ("weights", {"alexnet": "abc"}),
    ],
)  # fmt: skip
def test_compare_rejects_malformed_lines(part, content, call, flags, results):
    call(metrics, *flags, "--metrics=l1")
    (record,) = read_jsonl(results)
    file = results.parent / "metrics.jsonl"
    file.write_text(json.dumps({**record, part: content}) + "\n")
    done = call(metrics, f"--compare={file}")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: --compare {file}[,:].*\n", done.stderr)


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '["protocol"]\n'])
def test_compare_rejects_other_files(call, tmp_path, text):
    (tmp_path / "x.jsonl").write_text(text)
    done = call(metrics, f"--compare={tmp_path}/x.jsonl")
    assert done.returncode == 2
    assert "x.jsonl" in done.stderr
    assert call(metrics, f"--compare={tmp_path}/none.jsonl").returncode == 2
