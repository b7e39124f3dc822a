"""Reading checkpoint files."""

import sys
from pathlib import Path

import pytest
import torch

from util.checkpoint import load_file, load_tensors
from util.errors import UserError


@pytest.mark.parametrize("content", [b"", b"text", b"text\n", b"\x80\x02.", b"PK\x03\x04", b"{}", b"\x93NUMPY"])
def test_load_file_rejects_a_file_without_tensors(tmp_path, content):
    path = tmp_path / "latest_net_G.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="latest_net_G.pth: weights cannot be read; .*damaged or not a tensor file"):
        load_file(path, "weights")


@pytest.mark.parametrize("state", [{}, {0: torch.ones(1)}, {"weight": 1.0}, [torch.ones(1)]])
def test_load_tensors_rejects_what_is_not_names_to_tensors(tmp_path, state):
    path = tmp_path / "latest_net_G.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match="latest_net_G.pth: expected a state dict"):
        load_tensors(path, "weights")


@pytest.mark.parametrize("is_zip", [True, False])
def test_load_file_maps_what_torch_writes_since_1_6(is_zip, tmp_path):
    path, state = tmp_path / "a.pth", {"w": torch.arange(5000.0), "half": torch.ones(3).half()}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    loaded = load_file(path, "weights", mapped=True)
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    if sys.platform == "linux":
        assert (str(path) in Path("/proc/self/maps").read_text()) == is_zip
