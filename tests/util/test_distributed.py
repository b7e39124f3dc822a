"""Two real processes (gloo) compute what one computes; --accumulate too; when gradients are sent; rank logic."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from data.loaders import create_train_loaders
from tests.distributed_worker import gradients_after_steps
from tests.helpers import CPU, REPOSITORY, compiles, losses_logged, train_flags, train_options
from util import distributed
from util.checkpoint import load_state
from util.distributed import GradientAverager
from util.errors import UserError


@pytest.fixture
def torchrun(memory) -> Callable[..., subprocess.CompletedProcess]:
    """torchrun(processes, script, flags...) starts the script in several processes and waits for them."""

    def run_processes(processes: int, script: str, *flags: object) -> subprocess.CompletedProcess:
        memory.free()
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone",
             REPOSITORY / script, *map(str, flags)],
            capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run_processes


def run_workers(*arguments: object) -> None:
    """Run tests/distributed_worker.py in two processes, as torchrun would, and wait for them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, REPOSITORY / "tests/distributed_worker.py", *map(str, arguments)]
    workers = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **common, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [worker.communicate(timeout=600)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return gradients_after_steps()


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
def test_gradients_of_two_processes_equal_those_of_one(alone, tmp_path, accumulate):
    run_workers(tmp_path / "gradients.pt", "gradients", f"--accumulate={accumulate}")
    assert_same_gradients(torch.load(tmp_path / "gradients.pt", weights_only=True), alone)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_equal_those_of_the_batch(alone, accumulate):
    assert_same_gradients(gradients_after_steps(f"--accumulate={accumulate}"), alone)


@pytest.mark.parametrize(
    "settings",
    [
        ["", "--accumulate=2", "--gan_mode=wgangp", "--gan_mode=wgangp --accumulate=2"],
        pytest.param(["--compile"], marks=[compiles, pytest.mark.slow]),
    ],
    ids=["plain", "compile"],
)
def test_gradients_averaged_during_backward_equal_those_averaged_after_it(tmp_path, settings):
    """After two steps, the second with the weights and Adam moments of the first.

    Generator and batch have the sizes of tests/models/test_compile.py, so that torch may find the code in its cache.
    """
    run_workers(tmp_path / "gradients.pt", "averager", *settings)
    gradients = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert list(gradients) == settings
    for setting, (ours, wanted) in gradients.items():
        assert ours.keys() == wanted.keys()
        for key, gradient in wanted.items():
            assert (ours[key] - gradient).norm() <= 1e-6 * gradient.norm(), (setting, key)


class TestGradientAverager:
    @pytest.fixture
    def sent(self, monkeypatch) -> Iterator[list[int]]:
        """A group of this process alone, and the lengths of the all-reduces of gradients so far."""
        lengths = []
        all_reduce = dist.all_reduce

        def record(tensor, *more, async_op=False, **keywords):
            if async_op:
                lengths.append(tensor.numel())
            return all_reduce(tensor, *more, async_op=async_op, **keywords)

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        monkeypatch.setattr(dist, "all_reduce", record)
        monkeypatch.setattr(distributed, "processes", lambda: 4)  # as if the other three had sent zeros
        monkeypatch.setattr(GradientAverager, "BUCKET_BYTES", 16)
        yield lengths
        dist.destroy_process_group()

    @pytest.fixture
    def parameters(self) -> list[nn.Parameter]:
        return [nn.Parameter(torch.ones(size)) for size in (3, 2, 1, 9)]  # buckets of 9, 3 and 3 numbers

    @staticmethod
    def loss(parameters: list[nn.Parameter]) -> torch.Tensor:
        return sum(p.square().sum() for p in parameters)

    def test_all_reduces_start_during_backward_in_reverse_order(self, sent, parameters):
        averager = GradientAverager(parameters)
        for step in (1, 2):
            self.loss(parameters).backward()
            assert sent == [9, 3, 3] * step
            averager.finish()
            assert sent == [9, 3, 3] * step
            for parameter in parameters:
                assert torch.equal(parameter.grad, torch.full_like(parameter, 0.5))
                parameter.grad = None

    def test_buckets_start_in_order_where_gradients_are_ready_in_another(self, sent, parameters):
        GradientAverager(parameters)
        self.loss(parameters[:1]).backward()
        self.loss(parameters[1:3]).backward()
        assert sent == []
        self.loss(parameters[3:]).backward()
        assert sent == [9, 3, 3]

    def test_only_the_last_micro_batch_sends(self, sent, parameters):
        averager = GradientAverager(parameters, backward_passes=3)
        for _ in range(2):
            self.loss(parameters).backward()
            assert sent == []
        self.loss(parameters).backward()
        assert sent == [9, 3, 3]
        averager.finish()
        assert torch.equal(parameters[0].grad, torch.full((3,), 1.5))

    def test_several_forwards_of_one_backward_are_averaged_once(self, sent, parameters):
        """As in the discriminator's step, with WGAN-GP's gradient of a gradient."""
        averager = GradientAverager(parameters)
        loss = self.loss(parameters) + self.loss(parameters)
        (gradient,) = torch.autograd.grad(self.loss(parameters), parameters[0], create_graph=True)
        assert sent == []
        (loss + gradient.sum()).backward()
        assert sent == [9, 3, 3]
        averager.finish()
        assert torch.equal(parameters[0].grad, torch.full((3,), 1.5))
        assert torch.equal(parameters[1].grad, torch.ones(2))

    def test_frozen_network_sends_nothing(self, sent, parameters):
        GradientAverager(parameters)
        for parameter in parameters:
            parameter.requires_grad_(False)
        image = torch.ones(3, requires_grad=True)
        (self.loss(parameters) * image.sum()).backward()
        assert sent == []

    def test_missing_gradients_stay_missing_and_the_rest_is_averaged(self, sent, parameters):
        averager = GradientAverager(parameters)
        self.loss(parameters[:3:2]).backward()
        assert sent == []
        averager.finish()
        assert sent == [9, 3, 3]
        assert [p.grad is None for p in parameters] == [False, True, False, True]
        assert torch.equal(parameters[2].grad, torch.full((1,), 0.5))

    def test_non_finite_gradients_stay_non_finite(self, sent, parameters):
        averager = GradientAverager(parameters)
        (self.loss(parameters) * float("inf")).backward()
        averager.finish()
        assert all(p.grad.isinf().all() for p in parameters)

    def test_channels_last_gradients_keep_their_values(self, sent):
        convolution = nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
        averager = GradientAverager(convolution.parameters())
        image = torch.arange(18.0).view(1, 2, 3, 3)
        convolution(image).square().sum().backward()
        before = [p.grad.clone() for p in convolution.parameters()]
        averager.finish()
        for parameter, gradient in zip(convolution.parameters(), before, strict=True):
            assert torch.equal(parameter.grad, gradient / 4)

    def test_backward_after_all_gradients_were_sent_is_an_error(self, sent, parameters):
        GradientAverager(parameters)
        self.loss(parameters).backward()
        with pytest.raises(RuntimeError, match="a gradient changed while it was averaged, after 1 backward"):
            self.loss(parameters).backward()

    def test_single_process_registers_no_hooks(self, parameters):
        averager = GradientAverager(parameters)
        assert all(p._post_accumulate_grad_hooks is None for p in parameters)
        self.loss(parameters).backward()
        averager.finish()
        assert torch.equal(parameters[0].grad, torch.full((3,), 2.0))


class TestProcessGroup:
    @pytest.mark.parametrize(("device", "backend"), [("cuda:1", "nccl"), ("cpu", "gloo")])
    def test_only_the_cpu_group_waits_for_hours(self, monkeypatch, device, backend):
        calls = []
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(distributed, "_cpu_group", None)
        monkeypatch.setattr(distributed, "select_device", lambda *_: torch.device(device))
        monkeypatch.setattr(dist, "init_process_group", lambda *args, **keywords: calls.append((args, keywords)))
        monkeypatch.setattr(dist, "new_group", lambda **keywords: calls.append(keywords))
        with distributed.process_group(None):
            pass
        device_id = torch.device(device) if backend == "nccl" else None
        assert calls[0] == ((backend,), {"device_id": device_id})
        assert (calls[1]["backend"], calls[1]["timeout"].total_seconds()) == ("gloo", 7200)


def test_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    """They exchange a message once in about a second, not at every step."""
    run_workers(tmp_path / "stopped", "stop")
    stopped = (tmp_path / "stopped0").read_text()
    assert (tmp_path / "stopped1").read_text() == stopped
    steps, messages = int(stopped.split()[0]), int(stopped.split()[-1])
    assert "by signal 15" in stopped
    assert 150 <= steps <= 400
    assert 3 <= messages <= 20


def test_differing_weights_stop_every_process(tmp_path):
    run_workers(tmp_path / "said", "differ")
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


def test_resume_with_more_processes_stops_by_signal(run, market, memory):
    flags = train_flags(market, "--batchSize=4", "--print_freq=4", "--niter=1", "--niter_decay=0", "--val_pairs=0")
    run("train", *flags, "--name=a")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    memory.free()
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
    with pytest.raises(UserError, match=r"6, .* a multiple of 4 \(number of processes: 2, --accumulate 2\)"):
        create_train_loaders(options, CPU)
