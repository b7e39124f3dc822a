"""scripts/benchmark/gpu.py: a part that fails or takes too long stops no other; a rehearsal fills the report."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from scripts.benchmark import gpu, gpu_grid, gpu_report
from scripts.benchmark.gpu_grid import Cell
from scripts.benchmark.gpu_report import Context
from scripts.benchmark.gpu_summary import SUSPECTS, suspects
from tests.conftest import CPU, REPOSITORY


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(CPU, True, tmp_path, tmp_path, ["128x64"], time.monotonic() + 60)


def good(_context):
    yield {"value": 1.5, "passes": True}


def failing(_context):
    yield {"value": 2}
    raise ValueError("no such kernel\nmore")


def slow(_context):
    yield {"value": 3}
    time.sleep(30)


def report(context: Context) -> dict:
    return json.loads((context.out / "report.json").read_text())["parts"]


def test_run_part_goes_on_after_a_failure_and_keeps_the_rows_before_it(context, monkeypatch, capsys):
    parts = {"a": gpu.Part(failing, 1, 10), "b": gpu.Part(good, 1, 10), "c": gpu.Part(good, 3600, 10)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.run_parts(context, ["a", "b", "c"])
    found = report(context)
    assert found["a"]["rows"] == [{"value": 2}]
    assert found["a"]["notes"] == ["failed: ValueError: no such kernel"]
    assert "line" in found["a"]["traceback"]
    assert found["b"]["rows"] == [{"value": 1.5, "passes": True}]
    assert found["c"]["rows"] == []
    assert found["c"]["notes"][0].startswith("skipped")
    assert "  value 1.5, passes yes\n" in capsys.readouterr().out
    assert "| value | passes |\n|---|---|\n| 1.5 | yes |" in (context.out / "report.md").read_text()


def test_run_part_ends_a_part_that_takes_too_long(context, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", {"a": gpu.Part(slow, 0, -2.9), "b": gpu.Part(good, 1, 10)})
    gpu.run_parts(context, ["a", "b"])
    assert report(context)["a"]["notes"][0].startswith("failed: PartTimeout")
    assert report(context)["b"]["rows"]


def test_run_python_raises_the_last_line_of_a_failed_command():
    with pytest.raises(RuntimeError, match="status 3: last"):
        gpu_report.run_python("-c", "print('first\\nlast'); raise SystemExit(3)", timeout=60)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_report.run_python("-c", "import time; time.sleep(60)", timeout=0.5)


def test_grid_lists_each_cell_once_and_the_most_important_first(tmp_path):
    context = Context(CPU, False, tmp_path, tmp_path, ["256x256", "128x64"], 0)
    cells = gpu_grid.grid(context)
    assert len(set(cells)) == len(cells) == 2 * 2 * 3 * 3 * 2 * 3
    assert {(c.work, c.batch, c.mode) for c in cells[:8]} == {("training", 32, "eager")}
    assert {c.precision for c in cells[:8]} == {"bf16", "tf32"}
    assert cells[8].compiled


def test_cell_that_fails_has_a_reason_and_no_time(context, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_grid, "build_cell", fail)
    row = gpu_grid.measure_cell(Cell("training", "128x64", 32, "bf16", "contiguous", "eager"), context)
    assert row["failed"] == "RuntimeError: out of memory"
    assert "ms" not in row


def test_warmer_ends_what_is_not_finished(monkeypatch):
    codes = {"256x256": "import time; time.sleep(600)", "128x64": "pass"}

    def start(*arguments: str, **_: str) -> subprocess.Popen:
        code = next(code for size, code in codes.items() if size in arguments[-1])
        return gpu_report.start_python("-c", code)

    monkeypatch.setattr(gpu_grid, "start_python", start)
    large, small = (Cell("training", size, 32, "bf16", "contiguous", "compile") for size in codes)
    warmer = gpu_grid.Warmer([large, small])
    assert warmer.finish(10) == {small}
    assert all(process.poll() is not None for process in warmer.processes)


def test_suspects_without_measurements_are_not_measured(context):
    rows = suspects(context)
    assert [row["suspect"] for row in rows] == list(SUSPECTS)
    assert {row["measured"] for row in rows} == {"not measured"}


@pytest.mark.slow
def test_rehearsal_on_a_cpu_fills_the_report(tmp_path):
    """Every part gives rows but the last one or two, which a slow machine may have no time for."""
    command = ["bash", "scripts/benchmark/gpu.sh", str(tmp_path / "out"), "--device=cpu", "--quick", "--minutes=8"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    content = json.loads(Path(tmp_path, "out/report.json").read_text())
    assert list(content["parts"]) == list(gpu.PARTS)
    assert [name for name, part in content["parts"].items() if part["traceback"] or not part["rows"]] == []
    assert all(row["passes"] for row in content["parts"]["goldens"]["rows"])
    assert [row["different after resuming"] for row in content["parts"]["resume"]["rows"]] == [0, 0]
    files = {path.name for path in Path(tmp_path, "out").iterdir()}
    assert files == {"report.json", "report.md", "profile.txt", "samples.png", "generator_fp16.pt.0"}
