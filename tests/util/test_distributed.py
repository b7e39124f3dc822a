"""Two real processes (gloo) compute what one computes; --accumulate too; rank logic."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.loaders import create_train_loaders
from tests.conftest import CPU, REPOSITORY, losses_logged, train_flags, train_options
from tests.distributed_worker import gradients_after_one_step
from util.checkpoint import load_state
from util.errors import UserError


@pytest.fixture
def torchrun() -> Callable[..., subprocess.CompletedProcess]:
    """torchrun(processes, script, flags...) starts the script in several processes and waits for them."""

    def run_processes(processes: int, script: str, *flags: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone",
             REPOSITORY / script, *map(str, flags)],
            capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run_processes


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return gradients_after_one_step(1)


def assert_same_gradients(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """1e-5 relative for each network, and for each tensor whose true gradient is not zero up to rounding."""
    assert ours.keys() == wanted.keys()
    for net in "GD":
        keys = [key for key in wanted if key.startswith(net)]
        whole = torch.cat([wanted[key].flatten() for key in keys]).norm()
        error = torch.cat([(ours[key] - wanted[key]).flatten() for key in keys]).norm()
        assert error < 1e-5 * whole
        for key in keys:
            assert (ours[key] - wanted[key]).norm() < 1e-5 * wanted[key].norm() + 1e-6 * whole, key


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_two_processes_equal_those_of_one(torchrun, alone, tmp_path, accumulate):
    done = torchrun(2, "tests/distributed_worker.py", tmp_path / "gradients.pt", accumulate)
    assert done.returncode == 0, done.stderr
    assert_same_gradients(torch.load(tmp_path / "gradients.pt", weights_only=True), alone)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_equal_those_of_the_batch(alone, accumulate):
    assert_same_gradients(gradients_after_one_step(accumulate), alone)


def test_differing_weights_stop_every_process(torchrun, tmp_path):
    done = torchrun(2, "tests/distributed_worker.py", tmp_path / "said", 1, "differ")
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert "network G differs between processes" in (tmp_path / f"said{rank}").read_text()


def test_two_processes_train_as_one(run, torchrun, market):
    """The same losses over five steps, one log, one set of files; then one process resumes the run."""
    flags = train_flags(market, "--batchSize=4", "--print_freq=4", "--niter=3", "--niter_decay=0")
    run("train", *flags, "--name=one")
    done = torchrun(2, "train.py", *flags, "--name=two", "--val_pairs=0")
    assert done.returncode == 0, done.stderr
    one, two = losses_logged("one"), losses_logged("two")
    assert (
        [row[:3] for row in one]
        == [row[:3] for row in two]
        == [(e, i, 8 * e + i - 8) for e in (1, 2, 3) for i in (4, 8)]
    )
    for step, tolerance in ((0, 1e-4), (4, 5e-3)):
        for name, value in one[step][3].items():
            assert two[step][3][name] == pytest.approx(value, rel=tolerance, abs=2e-6), (step, name)
    assert done.stdout.count("2 batches an epoch") == 1
    names = [{p.name for p in Path(f"checkpoints/{n}").iterdir()} for n in ("one", "two")]
    assert names[0] == names[1]
    assert len(Path("checkpoints/two/run_info.jsonl").read_text().splitlines()) == 1

    run("train", "--name=two", "--continue_train", "--niter=4", "--gpu_ids=-1")
    assert losses_logged("two")[-1][:3] == (4, 8, 32)
    state = load_state(Path("checkpoints/two/latest_state.pt"))
    assert len(state["random"]) == 1


def test_resume_with_more_processes_stops_by_signal(run, market):
    flags = train_flags(market, "--batchSize=4", "--print_freq=4", "--niter=1", "--niter_decay=0", "--val_pairs=0")
    run("train", *flags, "--name=a")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    process = subprocess.Popen(
        [*launcher, REPOSITORY / "train.py", "--name=a", "--continue_train", "--niter=500"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("(epoch: 3"):
            break
    process.terminate()  # torchrun forwards the signal
    rest = process.stdout.read()
    process.wait(60)
    assert rest.count("stopped by signal 15; resume with") == 1
    state = load_state(Path("checkpoints/a/latest_state.pt"))
    assert len(state["random"]) == 2
    assert state["progress"]["total"] == losses_logged("a")[-1][2]


def test_batch_that_cannot_be_shared_is_a_user_error(market, monkeypatch):
    options = train_options("--dataset_mode=market", f"--dataroot={market}", "--batchSize=6", "--accumulate=2")
    create_train_loaders(options, CPU)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--batchSize 6 is the total .* 2 processes x --accumulate 2"):
        create_train_loaders(options, CPU)
