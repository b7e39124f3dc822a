"""scripts/benchmark/gpu.py: a part that fails or takes too long stops no other; a rehearsal fills the report."""

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import pytest
import torch

from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.benchmark import gpu, gpu_grid, gpu_report, gpu_worker
from scripts.benchmark.gpu_cells import Cell, grid_jobs, later_jobs
from scripts.benchmark.gpu_report import Context
from scripts.benchmark.gpu_summary import SUSPECTS, suspects
from scripts.benchmark.networks import MODES
from tests.helpers import CPU, REPOSITORY


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
    gpu.run_parts(context, ["a", "b", "c"], for_training=0)
    found = report(context)
    assert found["a"]["rows"] == [{"value": 2}]
    assert found["a"]["notes"] == ["failed: ValueError: no such kernel"]
    assert "line" in found["a"]["traceback"]
    assert found["b"]["rows"] == [{"value": 1.5, "passes": True}]
    assert found["c"]["rows"] == []
    assert found["c"]["notes"][0].startswith("skipped")
    assert "  1.5: passes yes\n" in capsys.readouterr().out
    assert "| value | passes |\n|---|---|\n| 1.5 | yes |" in (context.out / "report.md").read_text()


def test_run_part_ends_a_part_that_takes_too_long(context, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", {"a": gpu.Part(slow, 0, -2.9), "b": gpu.Part(good, 1, 10)})
    gpu.run_parts(context, ["a", "b"], for_training=0)
    assert report(context)["a"]["notes"][0].startswith("failed: PartTimeout")
    assert report(context)["b"]["rows"]


@pytest.mark.parametrize(("device", "before"), [("cuda", ["machine"]), ("cpu", ["machine", "goldens", "people"])])
def test_processes_that_prepare_start_once_beside_untimed_parts(context, monkeypatch, device, before):
    """On the CPU only while it waits for them."""
    started = []
    names = ["machine", "goldens", "people", "prepare"]
    monkeypatch.setattr(gpu, "PARTS", {name: gpu.Part(lambda _context: iter(()), 1, 10) for name in names})
    monkeypatch.setattr(gpu, "free_memory", lambda _device: None)
    monkeypatch.setattr(gpu.gpu_grid, "start_workers", lambda context, _: started.append(list(context.parts)))
    context.device = torch.device(device)
    gpu.run_parts(context, names, for_training=0)
    assert started == [before]


def test_run_python_raises_the_last_line_of_a_failed_command():
    with pytest.raises(RuntimeError, match="status 3: last"):
        gpu_report.run_python("-c", "print('first\\nlast'); raise SystemExit(3)", timeout=60)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_report.run_python("-c", "import time; time.sleep(60)", timeout=0.5)


def test_parts_leave_time_to_the_training(context, monkeypatch):
    parts = {"a": gpu.Part(good, 20, 50), "training": gpu.Part(good, 20, 0.9)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    gpu.run_parts(context, ["a", "training"], for_training=45)  # of 60
    assert report(context)["a"]["notes"][0].startswith("skipped: 15 s")
    assert report(context)["training"]["rows"]


@pytest.fixture
def gpu_context(tmp_path) -> Context:
    return Context(torch.device("cuda"), False, tmp_path, tmp_path, ["256x256", "128x64"], 0)


def test_jobs_list_each_cell_once_and_the_most_important_first(gpu_context):
    jobs = grid_jobs(gpu_context)
    cells = [cell for job in [*jobs, *later_jobs(gpu_context)] for cell in job]
    assert len(set(cells)) == len(cells)
    assert {(c.work, c.batch, c.layout, c.mode) for job in jobs[:4] for c in job} == {
        ("training", 32, "contiguous", "eager"),
        ("training", 32, "contiguous", "graph"),
    }
    assert [job[0].work for job in jobs[:9]] == ["training"] * 4 + ["half width"] + ["training"] * 4
    assert all(job[0].compiled for job in jobs[5:9])
    assert [(job[0].size, job[0].precision) for job in jobs if job[0].compiled] == [
        ("256x256", "bf16"), ("128x64", "bf16"), ("256x256", "tf32"), ("128x64", "tf32"),
    ]  # fmt: skip


def test_every_cell_has_flags_that_its_command_accepts(gpu_context):
    for cell in {cell for job in [*grid_jobs(gpu_context), *later_jobs(gpu_context)] for cell in job}:
        options = TrainOptions() if cell.is_training else TestOptions()
        opt = options.parse(["--name=x", f"--dataset_mode={MODES[cell.size]}", *cell.flags(quick=False)])
        assert getattr(opt, "cuda_graph", False) == cell.graph
        assert opt.compile == cell.compiled


def test_cell_that_fails_has_a_reason_and_no_time(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_worker, "build_cell", fail)
    rows = list(gpu_worker.measure([CELL], CPU, quick=True))
    assert list(rows[0]) == ["ready"]
    assert rows[1]["failed"] == "RuntimeError: out of memory"
    assert "ms" not in rows[1]


CELL = Cell("training", "128x64", 32, "bf16", "contiguous", "eager")
OTHER = dataclasses.replace(CELL, mode="graph")


def worker_script(monkeypatch, *lines: str) -> None:
    """Let workers run these lines of Python, in which `row(cell, **values)` prints a row, instead of measuring."""
    prologue = (
        "import json, sys, time\ndef row(_fields, **values): print(json.dumps({**_fields, **values}), flush=True)"
    )
    cells = [f"{name} = {dataclasses.asdict(cell)}" for name, cell in (("cell", CELL), ("other", OTHER))]
    code = "\n".join([prologue, *cells, *lines])

    def start(*_: str, with_stdin: bool, **__: str) -> subprocess.Popen:
        return gpu_report.start_python("-c", code, with_stdin=with_stdin)

    monkeypatch.setattr(gpu_grid, "start_python", start)


READY = ["print('a warning')", "row({}, ready=1.5)", "sys.stdin.readline()"]


@pytest.fixture
def measuring(context) -> Context:
    """The context within a part that has 20 seconds."""
    context.parts["grid"] = gpu_report.PartReport()
    context.current, context.part_end = "grid", time.monotonic() + 20
    return context


def test_worker_measures_when_it_is_asked_to(measuring, monkeypatch):
    profile = "profile=dict(classes={'copy': 1.0, 'matmul': 3.0}, listed=[['gemm', 2, 3.0]], kernels=2)"
    rows = ["row(cell, ms=64.0)", "row(other, failed='no memory')", f"row({{}}, cell=list(cell.values()), {profile})"]
    worker_script(monkeypatch, *READY, *rows, "row({}, done=True)")
    job, measured = (CELL, OTHER), measuring.parts["grid"].rows
    measuring.workers = {job: gpu_grid.Worker(job, measuring)}
    assert [row["seconds"] for row in gpu_grid.wait_for_workers(measuring)] == [1.5]
    for row in gpu_grid.measure_job(job, measuring):
        measured.append(row)
    first, second = measured
    assert (first["mode"], first["ms"], first["kernels"], first["pairs/s"]) == ("eager", 64.0, 2, 500.0)
    assert (second["mode"], second["failed"]) == ("graph", "no memory")
    assert measuring.profiles[0]["matmul"] == "3.00 ms 75%"
    assert "gemm" in (measuring.out / "profile.txt").read_text()
    assert measuring.workers == {}
    assert measuring.parts["grid"].notes == []


def test_worker_that_crashes_keeps_the_rows_before_it(measuring, monkeypatch):
    worker_script(monkeypatch, *READY, "row(cell, ms=2.0)", "sys.exit('illegal address')")
    measuring.part_end += 30  # no worker is prepared
    rows = list(gpu_grid.measure_job((CELL, OTHER), measuring))
    assert [row["ms"] for row in rows] == [2.0]
    assert measuring.parts["grid"].notes[0].startswith("1 of 2 cells")
    assert measuring.parts["grid"].notes[0].endswith("illegal address")


def test_worker_that_does_not_get_ready_is_ended(measuring, monkeypatch):
    worker_script(monkeypatch, "time.sleep(600)")
    worker = gpu_grid.Worker((CELL,), measuring)
    measuring.workers, measuring.part_end = {(CELL,): worker}, time.monotonic() + 0.3
    assert list(gpu_grid.wait_for_workers(measuring)) == []
    assert measuring.workers == {}
    assert worker.process.poll() is not None
    assert "not ready" in measuring.parts["grid"].notes[0]


def test_job_is_left_out_when_too_little_time_is_left(measuring):
    measuring.part_end = time.monotonic() + 2
    assert list(gpu_grid.measure_job((CELL, OTHER), measuring)) == []
    assert measuring.left_out == [CELL, OTHER]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("void cudnn::ops::nchwToNhwcKernel<float, float, float, false>", "layout conversion"),
        ("sm80_xmma_dgrad_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc", "convolution"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_NTN", "matmul"),
        ("void at::native::batch_norm_collect_statistics_kernel<at::native::InvStd>", "normalization"),
        ("triton_red_fused__native_batch_norm_legit_3", "Triton reduction"),
        ("triton_poi_fused_convolution_leaky_relu_1", "Triton pointwise"),
        ("void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda>", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>", "reduction"),
        ("fmha_cutlassF_f32_aligned_64x64_rf_sm80", "attention"),
        ("multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata<4>, FusedAdamMathFunctor>", "optimizer"),
        ("void at::native::max_pool_forward_nhwc<float, int>", "other"),
    ],
)
def test_class_of_kernel(name, expected):
    assert gpu_worker.class_of_kernel(name) == expected


def test_suspects_without_measurements_are_not_measured(context):
    rows = suspects(context)
    assert [row["suspect"] for row in rows] == list(SUSPECTS)
    measured = {row["suspect"]: row["measured"] for row in rows}
    assert measured.pop(5) == "tests/models/test_compile.py, on a CPU"
    assert set(measured.values()) == {"not measured"}


def test_suspects_tell_training_under_torchrun_from_steps_in_a_group(context):
    commands = [
        {"command": "train.py", "result": "done"},
        {"command": "three steps in a group", "result": "backend nccl"},
    ]
    context.parts["torchrun"] = gpu_report.PartReport(rows=commands)
    measured = {row["suspect"]: row["measured"] for row in suspects(context)}
    assert (measured[2], measured[3]) == ("train.py: done", "three steps in a group: backend nccl")


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
    assert [row["different after resuming"] for row in content["parts"]["resume"]["rows"]] == [0]
    files = {path.name for path in Path(tmp_path, "out").iterdir()}
    assert files == {"report.json", "report.md", "profile.txt", "samples.png", "generator_fp16.pt.0"}
