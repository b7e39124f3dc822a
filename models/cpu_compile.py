"""Compiled drawing on a CPU that outlives the process: made once for a network and the shapes of its inputs, kept on
disk, and loaded in a fraction of a second at the next start.

`torch.compile` alone starts anew each time, which takes some 20 s: it keeps no graph whose weights are constants. Here
AOTInductor, a part of torch, makes a shared library.
"""

import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from util.errors import UserError

KEPT = 20  # libraries, of 22 MB (bf16) to 42 MB (fp32); those used last stay


def can_compile_ahead() -> bool:
    """Whether this torch can also take the weights of a library in memory of our own (see `load_library`)."""
    runner = getattr(getattr(torch._C, "_aoti", None), "AOTIModelContainerRunnerCpu", None)
    update = getattr(runner, "update_constant_buffer", None)
    return sys.platform == "linux" and "user_managed" in (getattr(update, "__doc__", None) or "")


def check_compiler() -> None:
    """UserError where torch will not find its C++ compiler."""
    command = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if sys.platform != "win32" and not shutil.which(shlex.split(command)[0]):
        raise UserError(f"--compile needs a C++ compiler on the CPU: install {command}, or leave --compile out")


class AheadOfTime:
    """To be called instead of `function`, which takes tensors, in any nesting, and gives a tuple of tensors.

    The weights of `net`, which `function` runs, become constants of the library: after a change call `forget`. Where
    no library can be made or kept, one line says so, and `otherwise` is called; UserError without a compiler.
    """

    def __init__(self, function: Callable, net: nn.Module, folder: Path, otherwise: Callable) -> None:
        self.function, self.net, self.folder, self.otherwise = function, net, folder, otherwise
        self.libraries: dict[str, Callable] = {}  # by kind of inputs
        self.possible = True

    def forget(self) -> None:
        """Take the weights as they are at the next call."""
        self.libraries.clear()

    def __call__(self, *inputs: Any) -> Any:
        inputs = tree_map_only(Tensor, _without_gaps, inputs)
        leaves, nesting = tree_flatten(inputs)
        kind = [(x.dtype, x.shape, x.stride()) if isinstance(x, Tensor) else x for x in leaves]
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        kind = repr((kind, nesting, torch.get_num_threads(), autocast))
        if self.possible and kind not in self.libraries:
            try:
                self.libraries[kind] = self._library(kind, inputs)
            except UserError:
                raise
            except Exception as error:  # whatever a compiler can meet: drawing goes on without it
                first_line = str(error).strip().splitlines()[:1] or [type(error).__name__]
                print(f"compiled code cannot be kept for the next start: {first_line[0]}", file=sys.stderr)
                self.possible = False
        if not self.possible:
            return self.otherwise(*inputs)
        return tuple(self.libraries[kind]([x for x in leaves if isinstance(x, Tensor)]))

    def _library(self, kind: str, inputs: tuple) -> Callable:
        path = self.folder / f"{self._fingerprint(kind)}.so"
        if is_whole(path):
            with suppress(OSError):  # of somebody else
                os.utime(path)
            with suppress(RuntimeError):  # made where other libraries are: made again
                return load_library(path)
        self._make(path, inputs)
        with suppress(OSError):  # another process cleans up too
            clean(self.folder)
        return load_library(path)

    def _fingerprint(self, kind: str) -> str:
        """Of all that the library depends on: torch, processor, our sources, architecture, weights, inputs."""
        here = Path(__file__).parent
        parts = [torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), _processor_flags()]
        parts += [source.read_text() for source in (*sorted(here.glob("*.py")), here.parent / "data" / "keypoints.py")]
        parts += [torch.get_float32_matmul_precision(), repr(self.net), kind]
        for module in self.net.modules():  # such as the number of heads
            settings = {name: x for name, x in vars(module).items() if isinstance(x, bool | int | float | str | tuple)}
            parts.append(f"{type(module)} {sorted(settings.items())}")
        digest = sha256("\0".join(parts).encode())
        for name, tensor in self.net.state_dict().items():
            digest.update(f"\0{name} {tensor.dtype} {tensor.shape} {tensor.stride()}\0".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _make(self, path: Path, inputs: tuple) -> None:
        check_compiler()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as scratch,
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            inputs = tree_map_only(Tensor, torch.clone, inputs)  # they came in inference mode
            program = torch.export.export(_Exported(self.function, self.net), inputs)
            options = {"freezing": True, "aot_inductor.output_path": str(Path(scratch) / "drawing.so")}
            made = Path(torch._inductor.aot_compile(program.module(), inputs, options=options))
            content = made.read_bytes()
            whole = made.with_suffix(".whole")
            whole.write_bytes(content + sha256(content).digest())
            os.replace(whole, path)


def clean(folder: Path) -> None:
    """Remove all but the libraries used last, and what a killed process left a day ago."""
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in [path for path in by_age if path.suffix == ".so"][:-KEPT]:
        old.unlink(missing_ok=True)
    for scratch in by_age:
        if scratch.is_dir() and time.time() - scratch.stat().st_mtime > 24 * 3600:
            shutil.rmtree(scratch, ignore_errors=True)


def _without_gaps(x: Tensor) -> Tensor:
    """`x`, its elements side by side in memory, in order or channels last."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if last else x.contiguous()


class _Exported(nn.Module):
    """`function` as the module that torch.export takes, with the weights below it."""

    def __init__(self, function: Callable, net: nn.Module) -> None:
        super().__init__()
        self.function, self.net = function, net

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def is_whole(path: Path) -> bool:
    """Whether the file ends with the checksum of the rest: half a library would end the process."""
    if not path.exists():
        return False
    content = path.read_bytes()
    return content[-32:] == sha256(content[:-32]).digest()


def load_library(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """What runs the library: all tensors of the inputs -> all of the outputs.

    AOTInductor puts weights at multiples of 16 bytes. Matrix units read them at half the rate of multiples of 64, which
    copies made by torch are.
    """
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    packed = {name: x.clone() for name, x in runner.extract_constants_map(False).items() if x.is_mkldnn}
    runner.update_constant_buffer(packed, False, False, True)
    library = runner.run

    def run(tensors: list[Tensor], _keeps: Any = packed) -> list[Tensor]:
        return library(tensors)

    return run


def _processor_flags() -> str:
    """What the kernel says the processor can do; where it does not say, torch's word has to do."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return line
    return ""
