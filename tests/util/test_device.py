"""Freed memory stays with the process for the next tensor; counted by the pages that it holds and requests."""

import ctypes
import json
import os
import sys

import pytest

from util.device import keep_freed_memory

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
