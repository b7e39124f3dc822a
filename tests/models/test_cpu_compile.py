"""The on-disk cache of compiled inference."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models import cpu_compile, create_model
from models.cpu_compile import CachedInference, _code_of, can_cache_inference, check_compiler
from tests.helpers import CPU, NO_VGG, REPOSITORY, TINY, TINY_G, compiles, test_options, train_options
from util.errors import UserError

pytestmark = [
    compiles,
    pytest.mark.slow,
    pytest.mark.skipif(not can_cache_inference(), reason="needs Linux and torch 2.9"),
]


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


def refuse_to_build(*_inputs: object) -> None:
    raise UserError("must not be built")


def cached(net: nn.Module, folder: Path, fallback=refuse) -> CachedInference:
    return CachedInference(lambda image, flag: (net(image) if flag else -net(image),), net, folder, fallback)


def assert_near(images: tuple[torch.Tensor], wanted: torch.Tensor) -> None:
    (image,) = images
    torch.testing.assert_close(image, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def one_library(tmp_path_factory) -> Path:
    """A folder with the library of net(image) alone: to build one takes eight seconds."""
    return tmp_path_factory.mktemp("library")


@pytest.fixture
def built(net, image, one_library, tmp_path) -> Path:
    """A folder of the test's own with that library."""
    if not any(one_library.iterdir()):
        with torch.inference_mode():
            assert_near(cached(net, one_library)(image, True), net(image))
        assert len(list(one_library.iterdir())) == 1
    return shutil.copytree(one_library, tmp_path / "built")


def test_library_is_built_once_for_its_inputs_and_weights(net, image, built, monkeypatch):
    """A library depends on weights, shapes, other inputs and threads; it serves inside and outside inference mode."""
    wanted, ours, threads = net(image), cached(net, built), torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(CachedInference, "_build", refuse_to_build)
        assert_near(ours(image, True), wanted)
        assert_near(ours(image.neg(), True), net(image.neg()))
        for others in ((image, False), (image[:1], True)):
            with pytest.raises(UserError, match="built"):
                ours(*others)
        patch.setattr(torch, "get_num_threads", lambda: threads + 1)  # the number is part of the code
        with pytest.raises(UserError, match="built"):
            ours(image, True)

    assert_near(ours(image[:1], False), -wanted[:1])
    assert_near(ours(image, True), wanted)
    assert len(list(built.glob("*"))) == 2
    net[0].weight.mul_(2)
    assert_near(ours(image, True), wanted)  # the weights are constants until
    ours.clear()
    assert_near(ours(image, True), net(image))
    assert len(list(built.glob("*"))) == 3


def test_library_under_autocast_returns_its_dtype(net, image, built):
    ours = cached(net, built)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            wanted, (result,) = net(image), ours(image, True)
        assert result.dtype == wanted.dtype == dtype
        torch.testing.assert_close(result, wanted, rtol=1e-2, atol=1e-2)


def test_library_is_loaded_by_another_process(net, image, built):
    torch.save((net.state_dict(), image), built / "saved")
    program = (
        "import sys, pathlib, torch; from torch import nn\n"
        "from tests.models.test_cpu_compile import CachedInference, cached\n"
        "folder = pathlib.Path(sys.argv[1]); weights, image = torch.load(folder / 'saved')\n"
        "net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.LeakyReLU(0.1), nn.Conv2d(32, 4, 3)).eval()\n"
        "net.requires_grad_(False).to(memory_format=torch.channels_last).load_state_dict(weights)\n"
        "torch.set_num_threads(int(sys.argv[2])); CachedInference._build = None\n"
        "torch.testing.assert_close(cached(net, folder)(image, True)[0], net(image), rtol=1e-5, atol=1e-5)"
    )
    command = [sys.executable, "-c", program, str(built), str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs bf16 weights in mkldnn format")
def test_packed_weights_are_aligned_to_64_bytes(net, image, tmp_path, monkeypatch):
    runners = []
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu
    update = runner.update_constant_buffer
    monkeypatch.setattr(runner, "update_constant_buffer", lambda *given: runners.append(given[0]) or update(*given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cached(net, tmp_path)(image, True)
    packed = [weight for weight in runners[0].extract_constants_map(False).values() if weight.is_mkldnn]
    assert len(packed) == 2
    assert all(torch.ops.mkldnn.data_ptr(weight) % 64 == 0 for weight in packed)


class Attention(nn.Module):
    """Has a setting that neither its weights nor its repr show."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.linear = heads, nn.Linear(2, 2)


def test_cache_key_differs_for_weights_settings_inputs_mode_and_function(tmp_path):
    state = nn.Linear(2, 2).state_dict()

    def key_of(net: nn.Module, kind: str = "kind", function: Callable = refuse) -> str:
        net.linear.load_state_dict(state)
        return CachedInference(function, net, tmp_path, refuse)._cache_key(kind)

    same = key_of(Attention(2))
    assert key_of(Attention(2)) == same
    state["bias"] += 1e-7
    others = [key_of(Attention(2)), key_of(Attention(4)), key_of(Attention(4), "other kind")]
    others += [key_of(Attention(4).eval()), key_of(Attention(2), function=assert_near)]
    assert len({same, *others}) == 6
    models = [create_model(test_options(*TINY_G, f"--nhead={heads}"), CPU, is_train=False) for heads in (1, 2)]
    models[1].net_G.load_state_dict(models[0].net_G.state_dict())
    assert len({CachedInference(refuse, m.net_G, tmp_path, refuse)._cache_key("kind") for m in models}) == 2


def test_cache_key_depends_on_the_code_of_the_networks_classes(tmp_path, monkeypatch):
    """Also where a class is in another file than the function."""
    monkeypatch.syspath_prepend(tmp_path)
    file, keys = tmp_path / "own_network_of_a_user.py", []
    for factor in (2, 3):
        code = (
            f"from torch import nn\n\nclass Twice(nn.Module):\n    def forward(self, x):\n        return {factor} * x\n"
        )
        file.write_text(code)
        net = nn.Sequential(importlib.import_module(file.stem).Twice())
        keys.append(cached(net, tmp_path)._cache_key(""))
    assert keys[0] != keys[1]


def test_cache_key_ignores_comments_docstrings_and_layout(tmp_path):
    file = tmp_path / "code.py"
    file.write_text('"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n')
    code = _code_of(file)
    file.write_text('"""Other."""\ndef f(x):\n    """Other."""\n    return (x +\n            1)\n')
    assert _code_of(file) == code
    file.write_text(file.read_text().replace("1", "2"))
    assert _code_of(file) != code


def test_inputs_of_any_layout_and_nesting_are_accepted(net, tmp_path):
    ours = CachedInference(lambda a, b: (a[0] - 2 * a[-1] + 4 * b[0],), net, tmp_path, refuse)
    x = torch.arange(24.0).view(2, 3, 4)
    strided, wide = torch.arange(48.0).view(2, 3, 8), torch.ones(2, 1, 1).expand(2, 3, 4)
    for a, b in (
        ([x, x + 1], [x]),
        ([x], [x + 1, x]),
        ([strided[..., ::2], x], [strided[..., 1::2]]),
        ([wide, x], [wide]),
    ):
        assert_near(ours(a, b), a[0] - 2 * a[-1] + 4 * b[0])


def test_damaged_library_is_built_again(net, image, built, monkeypatch):
    assert_near(cached(net, built)(image, True), net(image))
    (library,) = built.glob("*.so")
    content = library.read_bytes()
    monkeypatch.setattr(CachedInference, "_build", lambda _self, path, _inputs: path.write_bytes(content))
    for damaged in (content[:20_000], b"", content[:-1] + bytes([content[-1] ^ 1])):
        library.unlink()  # this process has mapped the old file
        library.write_bytes(damaged)
        assert_near(cached(net, built)(image, True), net(image))
        assert library.read_bytes() == content


def test_least_recently_used_libraries_are_removed(net, image, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_compile, "MAX_LIBRARIES", 2)
    for age, name in ((1000, "older.so"), (10, "newer.so")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    for name in ("old", "young"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (1e9, 1e9))  # left by a killed process
    cached(net, tmp_path)(image, True)
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "young").exists()
    assert not (tmp_path / "older.so").exists()
    assert (tmp_path / "newer.so").exists()
    (tmp_path / "newer.so").unlink()
    (library,) = tmp_path.glob("*.so")
    os.utime(library, (1, 1))
    cached(net, tmp_path)(image, True)
    assert library.stat().st_mtime > 1e9  # loading it counts as a use


def test_unwritable_cache_falls_back_with_one_line(net, image, tmp_path, capsys):
    """The line is printed once."""
    (tmp_path / "file").touch()
    ours = cached(net, tmp_path / "file", lambda image, flag: (net(image) + flag,))
    for _ in range(2):
        assert_near(ours(image, True), net(image) + 1)
    assert_near(ours(image, False), net(image))
    ours.clear()
    assert_near(ours(image, False), net(image))
    printed = capsys.readouterr().err
    assert printed.startswith("not compiled ahead of time, so each start compiles anew: ")
    assert len(printed.splitlines()) == 1
    assert str(tmp_path / "file") in printed


def test_missing_compiler_is_a_user_error(net, image, built, monkeypatch):
    """It is needed only where something has to be built."""
    monkeypatch.setenv("CXX", "/nowhere/g++ -O2")
    assert_near(cached(net, built)(image, True), net(image))
    with pytest.raises(
        UserError, match=r"^--compile needs a C\+\+ compiler on the CPU: install /nowhere/g\+\+ -O2, or"
    ):
        cached(net, built)(image, False)
    with pytest.raises(UserError, match="needs a C"):  # at once, not after the loader has started
        create_model(train_options(*TINY, *NO_VGG, "--compile"), CPU, is_train=True)
    monkeypatch.setenv("CXX", f"env {sys.executable}")
    check_compiler()
