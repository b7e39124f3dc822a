"""What can happen during training: non-finite losses and weights, broken photos; and its progress bar."""

import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import train as train_command
from data.pairs import read_pairs
from models.dptn_model import DPTNModel
from tests.helpers import LOSS_NAMES, train_flags
from util.checkpoint import Progress, load_state
from util.errors import UserError
from util.training import NonFiniteCheck, StopReason, StopSignal
from util.worker_processes import STOP_SIGNALS


def test_non_finite_loss_stops_the_run(run, market, monkeypatch):
    """It stops before it saves, so the last good training state and weights stay."""
    original, done = DPTNModel.optimize_parameters, [0]

    def optimize(self):
        done[0] += 1
        if done[0] == 5:  # the third step of the second epoch
            with torch.no_grad():
                self.net_G.decoder.output.conv.bias.fill_(float("nan"))
        original(self)

    monkeypatch.setattr(DPTNModel, "optimize_parameters", optimize)
    with pytest.raises(UserError, match="non-finite loss in the step that ends at 10 samples") as caught:
        run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
    message = str(caught.value)
    assert all(name in message for name in LOSS_NAMES)
    assert message.count(".jpg") == 4
    state = load_state(Path("checkpoints/a/latest_state.pt"))
    assert state["progress"]["total"] == 8
    for tensor in torch.load("checkpoints/a/latest_net_G.pth", weights_only=True).values():
        assert torch.isfinite(tensor).all()


def test_non_finite_gradient_stops_the_run_before_a_save(run, market, monkeypatch):
    """The loss is finite, but its gradient is not."""
    original, done = DPTNModel.update_weights, [0]

    def step(self, name, *more):
        done[0] += 1
        if done[0] == 8:  # the generator's in the fourth step
            self.net_G.decoder.output.conv.bias.grad[0] = float("inf")
        original(self, name, *more)

    monkeypatch.setattr(DPTNModel, "update_weights", step)
    with pytest.raises(UserError, match="network G has NaN or infinite weights"):
        run("train", *train_flags(market, "--batchSize=2", "--save_latest_freq=2"), "--name=a")
    assert load_state(Path("checkpoints/a/latest_state.pt"))["progress"]["total"] == 6
    assert torch.isfinite(torch.load("checkpoints/a/latest_net_G.pth", weights_only=True)["outconv.conv1.bias"]).all()


def test_photo_that_breaks_during_the_run_is_one_line(run, call, market):
    run("train", *train_flags(market), "--name=a")
    victim = read_pairs(market / "market-pairs-train.csv")[3].source
    path = market / "train" / victim
    path.write_bytes(path.read_bytes()[:-300])
    done = call(train_command, "--name=a", "--continue_train", "--niter=5", "--nThreads=2")
    assert done.returncode == 2
    assert f"{victim}: photo cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_without_a_terminal_shows_no_bar(run, call, market):
    done = call(train_command, *train_flags(market), "--name=a", "--print_freq=3")
    assert done.returncode == 0
    assert "sample/s" not in done.stderr
    assert done.stdout.count("total iters:") == 4


def test_progress_bar_shows_data_and_step_time(run, market, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run("train", *train_flags(market), "--name=a")
    bar = capsys.readouterr().err
    assert re.search(r"epoch 2/2: 100%.*8/8|epoch 2/2:.*6/6.*sample.*data \d\.\d{3} s, step \d\.\d{3} s", bar)


class TestNonFiniteCheck:
    def test_bad_losses_name_the_first_step(self):
        nan_check = NonFiniteCheck()
        for total, value in ((2, 1.0), (4, float("nan")), (6, float("nan"))):
            nan_check.record(total, [f"{total}.jpg"], {"app": torch.tensor(value), "style": torch.tensor(0.5)})
        with pytest.raises(UserError) as caught:
            nan_check.check()
        message = str(caught.value)
        assert "ends at 4 samples: app nan (!), style 0.5." in message
        assert "4.jpg" in message
        assert "2.jpg" not in message

    def test_finite_losses_pass_once(self):
        nan_check = NonFiniteCheck()
        nan_check.check()
        nan_check.record(1, [], {"a": torch.tensor(1.0)})
        assert nan_check.check() is None
        assert nan_check.check() is None  # each step is looked at once


class TestProgress:
    def test_crossed_is_true_when_a_multiple_is_reached_or_passed(self):
        progress = Progress()
        crossings = []
        for _ in range(5):
            progress.step(4)
            crossings.append(progress.crossed(6))
        assert crossings == [False, True, True, False, True]  # at 4, 8, 12, 16, 20 samples
        assert (progress.batches_done, progress.total) == (5, 20)


class TestStopSignal:
    @pytest.fixture(autouse=True)
    def hangups(self, signal_handlers):
        """SIGHUP as a terminal leaves it, also where nohup has started the tests."""
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
    def test_signal_becomes_its_reason_and_may_be_repeated_until_the_process_ends(self, name):
        number = getattr(signal, name)
        with StopSignal() as stop:
            assert stop.reason() is None
            os.kill(os.getpid(), number)
            reason = stop.reason()
        assert reason is StopReason[name]
        assert (reason.exit_status, str(reason)) == (128 + number, f"by signal {int(number)}")
        os.kill(os.getpid(), number)

    def test_handlers_are_restored_where_no_signal_came(self):
        before = [signal.getsignal(number) for number in STOP_SIGNALS]
        with StopSignal():
            assert before != [signal.getsignal(number) for number in STOP_SIGNALS]
        assert before == [signal.getsignal(number) for number in STOP_SIGNALS]

    def test_nohup_keeps_hangups_ignored(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with StopSignal() as stop:
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop.reason() is None
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_failed_output_stops_with_status_2_unless_a_signal_came(self):
        with StopSignal(max_minutes=0) as stop:
            reason = stop.reason(output_failed=True)
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason(output_failed=True) is StopReason.SIGHUP
        assert (reason, reason.exit_status) == (StopReason.OUTPUT_FAILED, 2)

    def test_second_interrupt_after_a_while_raises(self, monkeypatch):
        monkeypatch.setattr(StopSignal, "REPEATED_SIGNAL_SECONDS", 0.0)
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.reason() is StopReason.SIGINT
            with pytest.raises(SystemExit, match="second Ctrl-C"):  # status 1, not that of a saved run
                os.kill(os.getpid(), signal.SIGINT)

    def test_time_limit_stops_with_status_0(self):
        with StopSignal(max_minutes=0) as stop:
            reason = stop.reason()
        assert (reason, reason.exit_status, str(reason)) == (StopReason.TIME_LIMIT, 0, "after --max_minutes")
        assert (StopReason.SIGINT.exit_status, str(StopReason.SIGTERM)) == (130, "by signal 15")


class TestStopSignalOfTwoProcesses:
    """This process, by a fake clock, and another one, whose reason and step time are given."""

    @pytest.fixture
    def clock(self, monkeypatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
        monkeypatch.setattr("util.training.time", clock)
        return clock

    @pytest.fixture
    def other(self, monkeypatch) -> SimpleNamespace:
        other = SimpleNamespace(reason=None, step_time=0.0, messages=[])

        def gather(own: object) -> list:
            other.messages.append(own)
            return [own, (other.reason, other.step_time)]

        monkeypatch.setattr("util.distributed.processes", lambda: 2)
        monkeypatch.setattr("util.distributed.gather", gather)
        return other

    @staticmethod
    def agreements(stop: StopSignal, clock: SimpleNamespace, other: SimpleNamespace, steps: int, step_time: float):
        """The steps, from 1 on, after which the processes exchanged messages."""
        found = []
        for step in range(1, steps + 1):
            clock.now += step_time
            before = len(other.messages)
            assert stop.reason() is None
            if len(other.messages) > before:
                found.append(step)
        return found

    @pytest.mark.parametrize(
        ("step_time", "other_step_time", "wanted"),
        [
            (2.0, 0.1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
            (0.25, 0.1, [1, 5, 9]),
            (0.1, 0.25, [1, 5, 9]),  # the slowest process decides
            (0.001, 0.0, [1]),
        ],
    )
    def test_agreements_are_a_second_apart(self, clock, other, step_time, other_step_time, wanted):
        other.step_time = other_step_time
        assert self.agreements(StopSignal(), clock, other, 12, step_time) == wanted

    def test_most_steps_between_agreements_is_a_hundred(self, clock, other):
        assert self.agreements(StopSignal(), clock, other, 250, 1e-4) == [1, 101, 201]

    def test_interval_follows_the_step_time(self, clock, other):
        stop = StopSignal()
        clock.now += 100  # the first step compiles
        assert self.agreements(stop, clock, other, 7, 0.5) == [1, 2, 4, 6]
        assert self.agreements(stop, clock, other, 7, 3.0) == [1, 2, 3, 4, 5, 6, 7]

    def test_signal_waits_for_the_next_agreement(self, clock, other):
        stop = StopSignal()
        assert self.agreements(stop, clock, other, 3, 0.25) == [1]
        stop._receive(signal.SIGTERM, None)
        assert self.agreements(stop, clock, other, 1, 0.25) == []
        clock.now += 0.25
        assert stop.reason() is StopReason.SIGTERM

    def test_signal_on_one_process_outranks_the_time_limit_on_another(self, clock, other):
        other.reason = StopReason.SIGINT
        stop = StopSignal(max_minutes=1)
        clock.now += 61
        assert stop.reason() is StopReason.SIGINT
        assert other.messages == [(StopReason.TIME_LIMIT, 61.0)]
