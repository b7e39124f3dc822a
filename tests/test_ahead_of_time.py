"""Compiled drawing that is kept on disk for the next start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models import ahead_of_time
from models.ahead_of_time import AheadOfTime, can_compile_ahead
from tests.conftest import REPOSITORY, compiles

pytestmark = [compiles, pytest.mark.skipif(not can_compile_ahead(), reason="this torch cannot, or not on this system")]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.LeakyReLU(0.1), nn.Conv2d(32, 4, 3)).eval()
    return net.requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)


def refuse(*_inputs: object) -> None:
    raise AssertionError("must not be called")


def kept(net: nn.Module, folder: Path, otherwise=refuse) -> AheadOfTime:
    return AheadOfTime(lambda image, flag: (net(image) if flag else -net(image),), net, folder, otherwise)


def assert_near(drawn: tuple[torch.Tensor], wanted: torch.Tensor) -> None:
    (drawn,) = drawn
    torch.testing.assert_close(drawn, wanted, rtol=1e-5, atol=1e-5)


def test_the_library_is_made_once(net, image, tmp_path, monkeypatch):
    """By weights, shapes, other inputs and threads; in inference mode as outside."""
    wanted = net(image)
    with torch.inference_mode():
        assert_near(kept(net, tmp_path)(image, True), wanted)
    assert len(list(tmp_path.glob("*"))) == 1

    with monkeypatch.context() as patch:
        patch.setattr(AheadOfTime, "_make", refuse)
        again = kept(net, tmp_path)
        assert_near(again(image, True), wanted)
        assert_near(again(image.neg(), True), net(image.neg()))

    assert_near(again(image, False), -wanted)
    assert_near(again(image[:1], True), wanted[:1])
    assert len(list(tmp_path.glob("*.so"))) == 3
    net[0].weight.mul_(2)
    assert_near(again(image, True), wanted)  # a constant until
    again.forget()
    assert_near(again(image, True), net(image))
    assert len(list(tmp_path.glob("*.so"))) == 4
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # code has the number in it
    assert_near(again(image, True), net(image))
    assert len(list(tmp_path.glob("*"))) == 5


def test_under_autocast(net, image, tmp_path):
    ours = kept(net, tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            wanted, (drawn,) = net(image), ours(image, True)
        assert drawn.dtype == wanted.dtype == dtype
        torch.testing.assert_close(drawn, wanted, rtol=1e-2, atol=1e-2)


def test_another_process_loads_it(net, image, tmp_path):
    assert_near(kept(net, tmp_path)(image, True), net(image))
    torch.save((net.state_dict(), image), tmp_path / "saved")
    program = (
        "import sys, pathlib, torch; from torch import nn; from models.ahead_of_time import AheadOfTime\n"
        "folder = pathlib.Path(sys.argv[1]); weights, image = torch.load(folder / 'saved')\n"
        "net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.LeakyReLU(0.1), nn.Conv2d(32, 4, 3)).eval()\n"
        "net.requires_grad_(False).to(memory_format=torch.channels_last).load_state_dict(weights)\n"
        "torch.set_num_threads(int(sys.argv[2])); AheadOfTime._make = None\n"
        "ours = AheadOfTime(lambda image, flag: (net(image) if flag else -net(image),), net, folder, None)\n"
        "torch.testing.assert_close(ours(image, True)[0], net(image), rtol=1e-5, atol=1e-5)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_weights_are_where_matrix_units_read_them_fast(net, image, tmp_path, monkeypatch):
    given = []
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu
    update = runner.update_constant_buffer
    monkeypatch.setattr(runner, "update_constant_buffer", lambda *given_: given.append(given_) or update(*given_))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept(net, tmp_path)(image, True)
    addresses = [torch.ops.mkldnn.data_ptr(weight) for weight in given[0][1].values()]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert len(addresses) == 2
    assert all(address % 64 == 0 for address in addresses)


def test_a_damaged_library_is_made_again(net, image, tmp_path, monkeypatch):
    kept(net, tmp_path)(image, True)
    (library,) = tmp_path.glob("*.so")
    content = library.read_bytes()
    monkeypatch.setattr(AheadOfTime, "_make", lambda _self, path, _inputs: path.write_bytes(content))
    for damaged in (content[:20_000], b"", content[:-1] + bytes([content[-1] ^ 1])):
        library.unlink()  # the process still has the old one
        library.write_bytes(damaged)
        assert_near(kept(net, tmp_path)(image, True), net(image))
        assert library.read_bytes() == content


def test_only_the_last_used_stay(net, image, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead_of_time, "KEPT", 2)
    for age, name in ((1000, "older.so"), (10, "newer.so")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    kept(net, tmp_path)(image, True)
    assert not (tmp_path / "older.so").exists()
    assert (tmp_path / "newer.so").exists()
    (tmp_path / "newer.so").unlink()
    (library,) = tmp_path.glob("*.so")
    os.utime(library, (1, 1))
    kept(net, tmp_path)(image, True)
    assert library.stat().st_mtime > 1e9  # its use counts


def test_drawing_goes_on_where_nothing_can_be_kept(net, image, tmp_path, capsys):
    """One line says so, once."""
    (tmp_path / "file").touch()
    ours = kept(net, tmp_path / "file", lambda image, flag: (net(image) + flag,))
    for _ in range(2):
        assert_near(ours(image, True), net(image) + 1)
    assert_near(ours(image, False), net(image))
    said = capsys.readouterr().err
    assert said.startswith("compiled code cannot be kept for the next start: ")
    assert len(said.splitlines()) == 1
    assert str(tmp_path / "file") in said
