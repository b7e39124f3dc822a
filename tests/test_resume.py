"""A resumed run is bit-exact: in the middle of an epoch, with workers, after SIGTERM and after SIGKILL."""

import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from data.pose_pair_dataset import PosePairDataset
from models.dptn_model import DPTNModel
from options.train_options import moved_file
from tests.helpers import REPOSITORY, losses_logged, train_flags
from util import distributed, visualizer
from util.checkpoint import load_state
from util.errors import UserError

FLAGS = ["--batchSize=2", "--print_freq=2", "--niter=1", "--niter_decay=2"]  # 4 steps an epoch, 3 epochs


def assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal bit for bit, through dicts and lists."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def state_of(name: str) -> dict:
    return load_state(Path(f"checkpoints/{name}/latest_state.pt"))


def assert_same_runs(a: str, b: str) -> None:
    """Weights, Adam moments, learning rates, spectral vectors, random states, position, and every logged loss."""
    one, two = state_of(a), state_of(b)
    for key in ("model", "progress", "random"):
        assert_same(one[key], two[key], key)
    assert losses_logged(a) == losses_logged(b)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send this process SIGTERM in step number `steps`."""
    original, done = DPTNModel.optimize_parameters, [0]

    def optimize(self: DPTNModel) -> None:
        done[0] += 1
        if done[0] == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    monkeypatch.setattr(DPTNModel, "optimize_parameters", optimize)


@pytest.mark.parametrize(
    ("steps", "flags"),
    [
        (2, ["--gan_mode=wgangp"]),  # draws random numbers in each step
        (3, ["--lambda_content=0.5", "--lambda_style=500", "--val_pairs=2", "--niter_decay=1"]),  # 2 steps an epoch
        (4, []),  # the last step of an epoch
        (6, ["--nThreads=2", "--norm=batch"]),
        (5, ["--accumulate=2", "--precision=bf16", "--channels_last", "--niter_decay=1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_resumed_run_equals_the_undisturbed_run(run, market, monkeypatch, capsys, steps, flags):
    flags = train_flags(market, *FLAGS, *flags)
    run("train", *flags, "--name=whole")
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(SystemExit) as stopped:
            run("train", *flags, "--name=parts")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert len(losses_logged("parts")) == steps
    assert (
        "python train.py --name=parts --checkpoints_dir=./checkpoints --continue_train --gpu_ids=-1"
        in capsys.readouterr().out
    )
    run("train", "--name=parts", "--continue_train")  # every other option comes from the checkpoint
    assert_same_runs("whole", "parts")


def test_time_limit_saves_and_exits_with_0(run, market, monkeypatch, capsys):
    """Each start makes one step, saves and exits with status 0; together they equal a run without a limit."""
    flags = train_flags(market, *FLAGS, "--niter_decay=0")
    run("train", *flags, "--name=whole")
    start = ["--name=parts", "--max_minutes=0"]
    for steps in (1, 2):
        with pytest.raises(SystemExit) as stopped:
            run("train", *start, *(["--continue_train"] if steps > 1 else flags))
        assert stopped.value.code == 0
        assert len(losses_logged("parts")) == steps
        assert "stopped after --max_minutes; resume with: python train.py --name=parts" in capsys.readouterr().out
    run("train", "--name=parts", "--continue_train")  # the limit was that start's, not the run's
    assert_same_runs("whole", "parts")


def test_resume_does_not_decode_finished_batches(run, market, monkeypatch):
    flags = train_flags(market, *FLAGS, "--niter_decay=0")
    decoded = []
    original = PosePairDataset._load
    monkeypatch.setattr(PosePairDataset, "_load", lambda self, name: decoded.append(name) or original(self, name))
    run("train", *flags, "--name=whole")
    whole, decoded[:] = list(decoded), []
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(SystemExit):
            run("train", *flags, "--name=parts")
    decoded.clear()
    run("train", "--name=parts", "--continue_train")
    assert decoded == whole[3 * 4 :]


def test_resume_drops_log_lines_after_the_last_save(run, market, monkeypatch):
    """A killed run logged more than it saved; the continued run logs those steps once."""
    flags = train_flags(market, *FLAGS, "--tf_log")
    run("train", *flags, "--name=whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(SystemExit):
            run("train", *flags, "--name=parts")
    with open("checkpoints/parts/loss_log.txt", "a") as log:
        log.write("(epoch: 1, iters: 8, total iters: 8, time: 0.100) app_gen_s: 9.000000\n(epoch: 1, it")
    run("train", "--name=parts", "--continue_train")
    assert losses_logged("whole") == losses_logged("parts")


class TestOptionsOfAResumedRun:
    @pytest.fixture(autouse=True)
    def first_run(self, run, market):
        run("train", *train_flags(market, "--niter_decay=0"), "--name=a", "--lambda_rec=3")

    def test_conflicting_flag_names_both_values(self, call, market):
        done = call(train, "--name=a", "--continue_train", "--lambda_rec=2", "--ngf=8", "--batchSize=4")
        assert done.returncode == 2
        assert "--lambda_rec: 2.0 on the command line, 3.0 in the checkpoint" in done.stderr
        assert "--batchSize: 4 on the command line, 3 in the checkpoint" in done.stderr
        assert "--ngf" not in done.stderr  # it equals the checkpoint's

    def test_other_data_set_is_a_conflict(self, call):
        done = call(train, "--name=a", "--continue_train", "--dataset_mode=fashion")
        assert done.returncode == 2
        assert "--dataset_mode: fashion on the command line, market in the checkpoint" in done.stderr

    def test_harmless_flags_may_change(self, run):
        run(
            "train",
            "--name=a",
            "--continue_train",
            "--niter_decay=1",
            "--print_freq=3",
            "--nThreads=1",
            "--lambda_rec=3",
        )
        assert [row[:3] for row in losses_logged("a")] == [(2, 3, 9), (2, 6, 12)]
        rates = {n: o["param_groups"][0]["lr"] for n, o in state_of("a")["model"]["optimizers"].items()}
        assert rates == {"G": 0.0, "D": 0.0}  # the prolonged schedule ended
        assert "lambda_rec: 3.0    [default: 5.0]" in Path("checkpoints/a/train_opt.txt").read_text()
        assert len(Path("checkpoints/a/run_info.jsonl").read_text().splitlines()) == 2

    def test_extended_run_trains_at_the_new_rate(self, run):
        """The last epoch left the rate at its end; the epochs that are added must not train at that."""
        before = torch.load("checkpoints/a/latest_net_G.pth", weights_only=True)
        run("train", "--name=a", "--continue_train", "--niter=2")
        after = torch.load("checkpoints/a/latest_net_G.pth", weights_only=True)
        moved = (after["block0.model.0.weight"] - before["block0.model.0.weight"]).abs().max()
        assert moved > 1e-4  # Adam moves by about the rate, 2e-4

    def test_moved_run_is_resumed_where_it_is_now(self, run):
        Path("checkpoints").rename("elsewhere")
        run("train", "--name=a", "--checkpoints_dir=elsewhere", "--continue_train", "--niter=2")
        assert not Path("checkpoints").exists()
        assert load_state(Path("elsewhere/a/latest_state.pt"))["progress"]["total"] == 12

    def test_device_comes_from_the_command_line(self, run, monkeypatch):
        """Another machine may have none or other GPUs."""
        asked = []
        original = distributed.select_device
        monkeypatch.setattr(distributed, "select_device", lambda ids, *more: asked.append(ids) or original("-1"))
        run("train", "--name=a", "--continue_train")
        assert asked == [None]

    def test_moved_file_accepts_another_path_but_not_another_kind(self):
        assert moved_file("vgg_weights", "/b/vgg.pth", {"vgg_weights": "/a/vgg.pth"})
        assert not moved_file("vgg_weights", "random", {"vgg_weights": "/a/vgg.pth"})

    def test_sizes_of_the_checkpoint_may_be_repeated(self, run, market):
        run("train", *train_flags(market, "--ngf=9", "--nhead=3", "--niter_decay=0"), "--name=b")
        run("train", "--name=b", "--continue_train", "--nhead=3", "--niter=2")
        assert state_of("b")["options"]["nhead"] == 3
        assert state_of("b")["progress"]["total"] == 12

    def test_new_run_over_weights_without_state_is_refused(self, call, market):
        Path("checkpoints/a/latest_state.pt").unlink()
        done = call(train, *train_flags(market), "--name=a")
        assert done.returncode == 2
        assert "latest_net_G.pth exists and could be overwritten" in done.stderr
        assert "--load_pretrain" in done.stderr

    def test_new_run_over_released_weights_is_refused(self, call, market):
        Path("checkpoints/released").mkdir()
        Path("checkpoints/released/190_net_G.pth").touch()
        done = call(train, *train_flags(market), "--name=released")
        assert done.returncode == 2
        assert done.stderr.endswith("190_net_G.pth exists and could be overwritten: give another --name\n")

    def test_finished_run_ends_at_once(self, run, capsys):
        run("train", "--name=a", "--continue_train")
        assert "done: 6 samples" in capsys.readouterr().out

    def test_new_run_over_an_old_one_is_refused(self, call, market):
        done = call(train, *train_flags(market), "--name=a")
        assert done.returncode == 2
        assert "latest_state.pt exists: resume that run with --continue_train" in done.stderr

    def test_resume_without_a_run_is_a_user_error(self, call):
        done = call(train, "--name=b", "--gpu_id=-1", "--continue_train")
        assert done.returncode == 2
        assert "checkpoints/b/latest_state.pt not found" in done.stderr

    @pytest.mark.parametrize("content", [b"", b"not a state"])
    def test_damaged_state_is_a_user_error(self, call, content):
        Path("checkpoints/a/latest_state.pt").write_bytes(content)
        done = call(train, "--name=a", "--continue_train")
        assert done.returncode == 2
        assert "latest_state.pt: the training state cannot be read" in done.stderr

    def test_other_file_in_place_of_a_state_is_a_user_error(self, call):
        Path("checkpoints/a/latest_net_G.pth").replace("checkpoints/a/latest_state.pt")
        done = call(train, "--name=a", "--continue_train")
        assert done.returncode == 2
        assert "not a training state of format 1" in done.stderr

    def test_changed_csv_files_are_a_user_error(self, call, market):
        with (market / "market-pairs-train.csv").open("a") as file:
            file.write("0001_c1s1_train.jpg,0002_c1s1_train.jpg\n")
        done = call(train, "--name=a", "--continue_train", "--niter=5")
        assert done.returncode == 2
        assert "the csv files of the data set changed" in done.stderr


def test_full_disk_leaves_the_old_state(run, market):
    """A real failed write: the kernel refuses files over a limit."""
    run("train", *train_flags(market, "--niter_decay=0", "--save_epoch_freq=10"), "--name=a")
    state = Path("checkpoints/a/latest_state.pt")
    before, files = state.read_bytes(), set(state.parent.iterdir())
    line = f"exec {sys.executable} {REPOSITORY}/train.py --name=a --continue_train --niter=3"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {len(before) // 2048}; {line}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "latest_state.pt: could not be written" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert state.read_bytes() == before
    assert set(state.parent.iterdir()) == files
    run("train", "--name=a", "--continue_train", "--niter=2")


def start_training(*flags: str) -> subprocess.Popen:
    """train.py in a process group of its own, so that a signal to the group does not reach pytest."""
    return subprocess.Popen(
        [sys.executable, REPOSITORY / "train.py", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_second_epoch(process: subprocess.Popen) -> None:
    assert any(line.startswith("(epoch: 2") for line in process.stdout), "the training ended early"


def train_in_child(flags: list[str], threads: int) -> None:
    """train.py with some flags. The number of threads changes the last bits of the weights."""
    torch.set_num_threads(threads)
    sys.argv = ["train.py", *flags]
    train.main()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_process_group_saves_and_exits(run, market, number):
    """As Ctrl-C and a cluster send them: workers included."""
    flags = train_flags(market, *FLAGS, "--nThreads=2", "--niter=500")
    process = start_training(*flags, "--name=a")
    wait_for_second_epoch(process)
    for _ in range(2):  # torchrun sends on what its processes got already
        os.killpg(process.pid, number)
        time.sleep(0.05)
    rest = process.stdout.read()
    assert process.wait(60) == 128 + number
    assert f"stopped by signal {int(number)}; resume with: python {REPOSITORY}/train.py --name=a" in rest
    assert "Traceback" not in rest
    epoch = state_of("a")["progress"]["epoch"]
    run("train", "--name=a", "--continue_train", f"--niter={epoch}", "--niter_decay=0")


def test_run_whose_console_is_gone_saves_and_stops(run, market):
    """`train.py 2>&1 | tee`, then Ctrl-C: the reader of the pipe ends first. Then SIGUSR1, as SLURM sends it."""
    process = start_training(*train_flags(market, *FLAGS, "--niter=500"), "--name=a")
    wait_for_second_epoch(process)
    process.stdout.close()
    time.sleep(0.5)  # some lines are printed into the closed pipe
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(60) == 128 + signal.SIGUSR1
    assert state_of("a")["progress"]["total"] == losses_logged("a")[-1][2]
    assert not Path("checkpoints/a/lock.json").exists()


def test_full_disk_under_the_logs_saves_and_stops(call, run, market, monkeypatch):
    """The files of the logs cannot be extended; the state still can be written. Then there is space, and it resumes."""
    flags = train_flags(market, *FLAGS)
    run("train", *flags, "--name=whole")
    append = visualizer.append_text

    def no_space(path: Path, text: str) -> None:
        if '"total_iters": 6' in text:
            path = Path("/dev/full")
        append(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(visualizer, "append_text", no_space)
        done = call(train, *flags, "--name=parts")
    assert done.returncode == 2
    assert done.stderr == "error: /dev/full: could not be written (No space left on device)\n"
    assert "stopped by the error above; resume with: python" in done.stdout
    assert state_of("parts")["progress"]["total"] == 6
    run("train", "--name=parts", "--continue_train")
    assert_same(state_of("whole")["model"], state_of("parts")["model"])


def test_second_start_of_a_run_is_refused(run, call, market):
    """A cluster queued it twice; the first one is killed, and then the second one resumes at once."""
    flags = [*train_flags(market, *FLAGS, "--niter=500", "--save_latest_freq=2"), "--name=a"]
    process = start_training(*flags)
    wait_for_second_epoch(process)
    owner = f"process {process.pid} on host {platform.node()} since 20"
    done = call(train, "--name=a", "--continue_train", "--niter_decay=0")
    assert done.returncode == 2
    assert f"error: checkpoints/a: this run is being trained by {owner}" in done.stderr
    done = call(train, *flags)
    assert done.returncode == 2
    assert f"resume that run with --continue_train, or give another --name (not ended: {owner}" in done.stderr
    assert process.poll() is None
    process.kill()
    process.wait()
    epoch = state_of("a")["progress"]["epoch"]
    run("train", "--name=a", "--continue_train", f"--niter={epoch}", "--niter_decay=0")
    assert state_of("a")["progress"]["total"] == 8 * epoch


def test_twenty_kills(run, market, monkeypatch):
    """SIGKILL at random moments, a save at every step: the state always loads, the end is an undisturbed run's."""
    flags = train_flags(
        market, "--batchSize=2", "--print_freq=2", "--save_latest_freq=2", "--niter=20", "--niter_decay=10",
        "--save_epoch_freq=3", "--no-save_by_iter", "--ngf=4", "--ndf=4", "--num_blocks=0", "--num_CABs=0",
    )  # fmt: skip
    run("train", *flags, "--name=whole")
    state, moments = Path("checkpoints/parts/latest_state.pt"), random.Random(0)
    processes = multiprocessing.get_context("forkserver")  # imports torch and the program once, not twenty times
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # where that process finds train.py
    processes.set_forkserver_preload(["train", "torch._dynamo"])  # which Adam imports
    totals = []
    for life in range(20):
        given = [*(flags if not state.exists() else ["--continue_train"]), "--name=parts"]
        process = processes.Process(target=train_in_child, args=(given, torch.get_num_threads()))
        process.start()
        before = state.stat().st_mtime_ns if state.exists() else 0
        while not (state.exists() and state.stat().st_mtime_ns != before):
            assert process.is_alive(), f"training ended with status {process.exitcode}"
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        totals.append(load_state(state)["progress"]["total"])
        assert totals == sorted(totals), life
    multiprocessing.forkserver._forkserver._stop()  # it would keep half a gigabyte until the last test
    assert totals[-1] < 30 * 8, "the run ended before the last kill; nothing was tested"
    run("train", "--name=parts", "--continue_train")
    assert_same_runs("whole", "parts")
    files = [{p.name for p in Path(f"checkpoints/{name}").glob("*_net_*.pth")} for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert len(files[0]) == 2 * 11  # of G and D: latest, 3, 6, ..., 30
    kept = [torch.load(f"checkpoints/{name}/30_net_G.pth", weights_only=True) for name in ("whole", "parts")]
    assert_same(*kept)


def test_stop_at_a_due_save_keeps_its_weights(run, market, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(SystemExit):
            run("train", *train_flags(market, *FLAGS), "--name=a", "--save_latest_freq=4", "--save_by_iter")
    assert Path("checkpoints/a/4_net_G.pth").exists()


def test_resume_ignores_unfinished_temporary_files(run, market):
    run("train", *train_flags(market, "--niter_decay=0"), "--name=a")
    Path("checkpoints/a/.latest_state.pt.part").write_bytes(b"half a state")
    run("train", "--name=a", "--continue_train", "--niter=2")
    assert state_of("a")["progress"]["total"] == 12


def test_run_that_made_no_step_may_be_started_anew(call, run, market, monkeypatch):
    """Such as after a first step that did not fit into memory."""

    def fail(_model: DPTNModel) -> None:
        raise UserError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(DPTNModel, "optimize_parameters", fail)
        with pytest.raises(UserError, match="out of memory"):
            run("train", *train_flags(market), "--name=a")
    done = call(train, "--name=a", "--continue_train", "--batchSize=2")
    assert done.returncode == 2
    assert "start a new run with the same --name, since no step was made" in done.stderr
    run("train", *train_flags(market, "--batchSize=2", "--niter_decay=0"), "--name=a")
    assert state_of("a")["progress"]["total"] == 8
