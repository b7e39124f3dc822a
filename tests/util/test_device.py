"""The choice of a device and of bf16; freed memory that stays with the process for the next tensor."""

import ctypes
import json
import os
import sys

import pytest
import torch

from util.device import fast_bf16, keep_freed_memory, select_device, use_precision
from util.errors import UserError

PROBE = """
import json, os, resource
from pathlib import Path
from util.device import keep_freed_memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(SIZE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def measure():
    start, first = held(), new_pages()
    return {"kept": (held() - start) / SIZE, "requested again": new_pages() / first,
            "huge": os.environ.get("THP_MEM_ALLOC_ENABLE")}

SIZE = 64 << 20
before = measure()
keep_freed_memory()
print(json.dumps([before, measure()]))
"""
glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="acts on glibc only"
)


@glibc
def test_keep_freed_memory_reuses_pages(command, tmp_path, monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)  # which commands in this process have set
    (tmp_path / "probe.py").write_text(PROBE)
    before, after = json.loads(command(str(tmp_path / "probe.py")).stdout)
    assert before["kept"] < 0.1
    assert before["requested again"] > 0.9
    assert before["huge"] is None
    assert after["kept"] > 0.9
    assert after["requested again"] < 0.1
    assert after["huge"] == "1"


def test_keep_freed_memory_respects_the_users_setting(monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.parametrize(("platform", "library"), [("linux", object()), ("win32", None)], ids=["musl", "Windows"])
def test_keep_freed_memory_without_glibc_does_nothing(monkeypatch, platform, library):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")

    asked_for = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked_for.append(name) or library)
    keep_freed_memory()  # the library has no mallopt to call
    assert len(asked_for) == (platform == "linux")


@pytest.mark.parametrize(("bf16_seconds", "worth_it"), [(0.5, True), (0.9, False), (2.0, False)])
def test_fast_bf16_is_true_where_bf16_is_measured_faster(monkeypatch, bf16_seconds, worth_it):
    """fp32 takes one second by this clock, after a slow start that does not count."""
    laps = [9.0, *[1.0] * 5, 9.0, *[bf16_seconds] * 5]
    ticks = iter([tick for lap in laps for tick in (0.0, lap)])
    monkeypatch.setattr("util.device.time.perf_counter", lambda: next(ticks))
    assert fast_bf16(torch.device("cpu"), size=4) is worth_it
    assert not fast_bf16(torch.device("mps"))  # never asked there


class TestSelectDevice:
    def test_minus_one_is_the_cpu(self):
        assert select_device("-1") == torch.device("cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
    def test_missing_gpu_is_a_user_error(self):
        with pytest.raises(UserError, match="--gpu_ids 0: this machine has no CUDA GPUs. Use --gpu_ids -1"):
            select_device("0")

    def test_without_the_flag_cuda_comes_before_mps_before_cpu(self, monkeypatch):
        for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
            monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
            monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
            assert select_device(None).type == wanted

    @pytest.mark.parametrize("ids", ["", "gpu", "0,1", "-2", "-1,0"])
    def test_bad_ids_are_user_errors(self, ids):
        with pytest.raises(UserError, match="--gpu_ids"):
            select_device(ids)


class TestSelectDeviceOfTwoGPUs:
    @pytest.fixture(autouse=True)
    def two_gpus(self, monkeypatch) -> list[torch.device]:
        """Returns the devices that became current."""
        current = []
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(sys, "argv", ["train.py", "--name", "a b", "--gpu_ids", "0,1"])
        return current

    def test_several_gpus_in_one_process_name_torchrun(self):
        with pytest.raises(UserError, match="torchrun --nproc_per_node=2 train.py --name 'a b' --gpu_ids 0,1"):
            select_device("0,1")

    def test_each_process_gets_one_gpu(self):
        assert [select_device(ids, rank, 2).index for ids in (None, "1,0") for rank in range(2)] == [0, 1, 1, 0]
        assert select_device("-1", 1, 2).type == "cpu"
        assert select_device("1").index == 1

    def test_chosen_gpu_becomes_the_current_device(self, two_gpus):
        select_device("-1")
        assert two_gpus == []
        select_device("1")
        assert two_gpus == [torch.device("cuda", 1)]

    def test_more_processes_than_gpus_is_a_user_error(self):
        with pytest.raises(UserError, match="torchrun started 3 processes here; the number of GPUs for them is 2"):
            select_device(None, 0, 3)

    def test_gpu_beyond_the_last_is_a_user_error(self):
        with pytest.raises(UserError, match=r"2 CUDA GPUs \(0 to 1\)"):
            select_device("2")


@pytest.fixture
def matmul_settings():
    """Gives this process's settings of float32 matrix products back."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(
    ("precision", "device", "used", "matmul", "cudnn_tf32"),
    [
        (None, "cuda", "tf32", "high", True),  # as in the published training
        ("fp32", "cuda", "fp32", "highest", False),
        ("bf16", "cuda", "bf16", "high", True),
        (None, "cpu", "fp32", "highest", False),
        ("bf16", "cpu", "bf16", "medium", True),
        (None, "mps", "fp32", "highest", False),
    ],
)
def test_use_precision_sets_tf32(matmul_settings, monkeypatch, precision, device, used, matmul, cudnn_tf32):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (8, 0))
    assert use_precision(precision, torch.device(device)) == used
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == (matmul, cudnn_tf32)


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("tf32", "cpu", "--precision tf32 needs a CUDA GPU"),
        ("bf16", "mps", "--precision bf16 needs CUDA or the CPU"),
        ("bf16", "cuda", "compute capability 8.0 or newer .*; Tesla V100 has 7.0"),
    ],
)
def test_use_precision_refuses_what_the_device_lacks(monkeypatch, precision, device, message):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (7, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Tesla V100")
    with pytest.raises(UserError, match=message):
        use_precision(precision, torch.device(device))
