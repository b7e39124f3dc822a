"""`--compile`: torch.compile; for inference on a Linux CPU (torch 2.9 or newer) an on-disk cache of libraries instead.

`torch.compile` keeps no graph whose weights are constants, so each start would compile anew for some 20 s. AOTInductor,
a part of torch, builds a shared library instead: once for a network and the shapes of its inputs. It is cached in
~/.cache/dptn_compiled and loaded in a fraction of a second at the next start.
"""

import ast
import inspect
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

from util.errors import UserError, first_line
from util.home import user_cache

MAX_LIBRARIES = 20  # of 22 MB (bf16) to 42 MB (fp32) each; the least recently used are removed


def compile_function(function: Callable, nets: nn.Module, device: torch.device, is_train: bool, mode: str) -> Callable:
    """Compile `function`, which runs `nets`, on its first call.

    UserError where a CPU has no C++ compiler: at once, or for inference that is cached when a library must be built.
    Shapes are static on purpose: torch's dynamic shapes fail on some processors. Each new shape is compiled anew.
    `mode`: of torch.compile; a CPU has only its default.
    """
    inference_on_cpu = not is_train and device.type == "cpu"
    cached = inference_on_cpu and can_cache_inference()
    if device.type == "cpu" and not cached:
        check_compiler()
    cache_dir = user_cache("dptn_compiled")
    with suppress(OSError):  # fallback: torch's own folder, which a restart of the machine empties
        cache_dir.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir))
    from torch._inductor import config

    compiled = torch.compile(function, dynamic=False, fullgraph=True, mode=None if device.type == "cpu" else mode)
    # freezing: weights become constants, cast and laid out once. cpp_wrapper: hundreds of calls from C++ instead of
    # Python, 5 % of an image. Both belong to the process, so other models' settings are restored after each call.
    settings = {"freezing": not is_train, "cpp_wrapper": inference_on_cpu}

    def call_with_settings(*inputs: Any) -> Any:
        with config.patch(settings):
            return compiled(*inputs)

    if not cached:
        return call_with_settings
    return CachedInference(function, nets, cache_dir / "inference", fallback=call_with_settings)


def can_cache_inference() -> bool:
    """Whether libraries can be cached here: on Linux, by a torch that can replace their weights (`load_library`)."""
    return sys.platform == "linux" and torch.__version__ >= (2, 9)


def check_compiler() -> None:
    """Raise UserError where torch will not find its C++ compiler."""
    command = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if sys.platform != "win32" and not shutil.which(shlex.split(command)[0]):
        raise UserError(
            f"--compile needs a C++ compiler on the CPU: install {command}, or leave --compile out or give --no-compile"
        )


class CachedInference:
    """Call this in place of `function`: tensors and plain values, in any nesting -> a tuple of tensors.

    The weights of `nets`, which `function` runs, become constants of the library: call `clear` after they change. Where
    no library can be built or cached, one line says so, and `fallback` is called. UserError without a compiler.
    """

    def __init__(self, function: Callable, nets: nn.Module, folder: Path, fallback: Callable) -> None:
        self.function, self.nets, self.folder, self.fallback = function, nets, folder, fallback
        self.libraries: dict[str, Callable] = {}  # by signature of the inputs
        self.works = True

    def clear(self) -> None:
        """Read the weights again at the next call."""
        self.libraries.clear()

    def __call__(self, *inputs: Any) -> Any:
        inputs = tree_map_only(Tensor, _dense, inputs)
        leaves, nesting = tree_flatten(inputs)
        shapes = [(x.dtype, x.shape, x.stride()) if isinstance(x, Tensor) else x for x in leaves]
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        signature = repr((shapes, nesting, torch.get_num_threads(), autocast))
        if self.works and signature not in self.libraries:
            try:
                self.libraries[signature] = self._library(signature, inputs)
            except UserError:
                raise
            except Exception as error:  # a compiler can fail in any way: inference works without it
                print(f"not compiled ahead of time, so each start compiles anew: {first_line(error)}", file=sys.stderr)
                self.works = False
        if not self.works:
            return self.fallback(*inputs)
        return tuple(self.libraries[signature]([x for x in leaves if isinstance(x, Tensor)]))

    def _library(self, signature: str, inputs: tuple) -> Callable:
        path = self.folder / f"{self._cache_key(signature)}.so"
        if is_intact(path):
            with suppress(OSError):  # the file may belong to another user
                os.utime(path)
            with suppress(RuntimeError):  # it needs libraries that are elsewhere by now: build it again
                return load_library(path)
        self._build(path, inputs)
        with suppress(OSError):  # another process may be cleaning up too
            remove_old_libraries(self.folder)
        return load_library(path)

    def _cache_key(self, signature: str) -> str:
        """A hash of all that the library depends on: torch, processor, our code, architecture, weights, inputs."""
        models, own_file = Path(__file__).parent, Path(inspect.getfile(self.function))
        facts = [torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), _processor_flags()]
        files = {*models.glob("*.py"), models.parent / "data" / "keypoints.py", own_file}
        for kind in {base for module in self.nets.modules() for base in type(module).__mro__}:
            with suppress(TypeError, OSError):  # a class without a file
                if not kind.__module__.startswith("torch.") and inspect.getfile(kind).endswith(".py"):
                    files.add(Path(inspect.getfile(kind)))
        facts += [self.function.__qualname__, *(_code_of(file) for file in sorted(files) if file.exists())]
        facts += [torch.get_float32_matmul_precision(), repr(self.nets), signature]
        for module in self.nets.modules():  # settings that its repr does not show, such as the number of heads
            settings = {name: x for name, x in vars(module).items() if isinstance(x, bool | int | float | str | tuple)}
            facts.append(f"{type(module)} {sorted(settings.items())}")
        digest = sha256("\0".join(facts).encode())
        for name, tensor in self.nets.state_dict().items():
            digest.update(f"\0{name} {tensor.dtype} {tensor.shape} {tensor.stride()}\0".encode())
            digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _build(self, path: Path, inputs: tuple) -> None:
        check_compiler()
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch, torch.inference_mode(False), torch.no_grad():
            inputs = tree_map_only(Tensor, torch.clone, inputs)  # export does not take tensors of inference mode
            program = torch.export.export(_Exported(self.function, self.nets), inputs)
            options = {"freezing": True, "aot_inductor.output_path": str(Path(scratch) / "inference.so")}
            library = Path(torch._inductor.aot_compile(program.module(), inputs, options=options))
            content = library.read_bytes()
            with_checksum = library.with_suffix(".checked")
            with_checksum.write_bytes(content + sha256(content).digest())
            os.replace(with_checksum, path)


class _Exported(nn.Module):
    """`function` as the module that torch.export takes, with the weights as its children."""

    def __init__(self, function: Callable, nets: nn.Module) -> None:
        super().__init__()
        self.function, self.nets = function, nets

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def load_library(path: Path) -> Callable[[list[Tensor]], list[Tensor]]:
    """Load a library as a function from all tensors of the inputs to all tensors of the outputs.

    The packed weights are replaced by copies: AOTInductor aligns them to 16 bytes, torch's copies are aligned to 64,
    which matrix units read twice as fast.
    """
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    packed = {name: x.clone() for name, x in runner.extract_constants_map(False).items() if x.is_mkldnn}
    runner.update_constant_buffer(packed, False, False, True)
    return lambda tensors, _keep_alive=packed: runner.run(tensors)


def is_intact(path: Path) -> bool:
    """Whether the file ends with the checksum of the rest: half a library would end the process."""
    if not path.exists():
        return False
    content = path.read_bytes()
    return content[-32:] == sha256(content[:-32]).digest()


def remove_old_libraries(folder: Path) -> None:
    """Remove scratch folders that a killed process left a day ago, and all but the MAX_LIBRARIES most recently used
    libraries."""
    by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for library in [path for path in by_age if path.suffix == ".so"][:-MAX_LIBRARIES]:
        library.unlink(missing_ok=True)
    for scratch in by_age:
        if scratch.is_dir() and time.time() - scratch.stat().st_mtime > 24 * 3600:
            shutil.rmtree(scratch, ignore_errors=True)


def _dense(x: Tensor) -> Tensor:
    """`x` without gaps between its elements in memory, contiguous or channels_last."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if channels_last else x.contiguous()


def _code_of(file: Path) -> str:
    """The code of a Python file without its comments, docstrings and layout."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body[0].value.value = ""
    return ast.dump(tree)


def _processor_flags() -> str:
    """The instruction sets that the kernel reports, empty where it reports none."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return line
    return ""
