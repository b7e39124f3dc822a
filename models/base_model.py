"""What every model shares: device, precision, compilation, learning rates, saving and loading."""

import contextlib
import os
import warnings
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from models.cpu_compile import AheadOfTime, can_compile_ahead, check_compiler
from models.published_weights import load_network, save_network
from util.device import PRECISIONS
from util.errors import UserError

# How products of float32 matrices are computed. CUDA: TF32, as in the published training. In bf16 on a CPU only Gram
# matrices are such products: their features come in bfloat16, so nothing is lost.
FLOAT32_PRODUCTS = {("cuda", "fp32"): "high", ("cuda", "bf16"): "high", ("cpu", "bf16"): "medium"}


class BaseModel(ABC):
    """A model owns `nets` ('G', and 'D' in training), `optimizers` and `schedulers` under the same names.

    A training step leaves its scalar `losses` on the device, by name.
    """

    visual_names: ClassVar[tuple[str, ...]]  # titles of what `get_current_visuals` gives
    losses: dict[str, Tensor]

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        self.opt, self.device, self.is_train = opt, device, is_train
        self.nets: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.schedulers: dict[str, LambdaLR] = {}
        self.ahead: list[AheadOfTime] = []
        self.run_dir = Path(opt.checkpoints_dir) / opt.name
        self.channels_last = device.type != "mps" if opt.channels_last is None else opt.channels_last
        if device.type == "mps" and opt.precision != "fp32":
            raise UserError(f"--precision {opt.precision} needs CUDA or the CPU; Apple's MPS computes in fp32 here")
        torch.set_float32_matmul_precision(FLOAT32_PRODUCTS.get((device.type, opt.precision), "highest"))
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True

    @staticmethod
    @abstractmethod
    def modify_commandline_options(parser: ArgumentParser, is_train: bool) -> None:
        """Add the model's own flags."""

    @staticmethod
    @abstractmethod
    def validate_options(opt: Namespace, network_size: tuple[int, int]) -> None:
        """ValueError where flags do not fit each other or images of `network_size` (H, W)."""

    @abstractmethod
    def set_input(self, batch: dict[str, Any]) -> None:
        """Take a batch of the loader: the only move to the device."""

    @abstractmethod
    def test(self) -> Tensor:
        """Images (B,3,H,W) in [-1, 1], float32, without gradients, for the batch of `set_input`."""

    @abstractmethod
    def optimize_parameters(self) -> None:
        """One training step on the batch of `set_input`."""

    @abstractmethod
    def get_current_losses(self) -> dict[str, float]:
        """The losses of the last step, meaned over all processes, in the log's order. Waits for the device."""

    @abstractmethod
    def get_current_visuals(self) -> list[list[Image.Image]]:
        """Pictures of the last step, a row a sample, in the order of `visual_names`."""

    def prepare(self, net: nn.Module) -> nn.Module:
        """On the device, in the chosen memory order, in the right mode."""
        net = net.to(self.device).train(self.is_train)
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def compiled(self, function: Callable) -> Callable:
        """What to call instead of `function`: it is compiled on first use if asked to be.

        Weights become constants of the compiled code, cast and laid out once, if there is no training; on a CPU that
        code is kept for the next start where torch can. UserError where there is no compiler.
        """
        if not self.opt.compile:
            return function
        drawing = not self.is_train
        ahead = drawing and self.device.type == "cpu" and can_compile_ahead()
        if self.device.type == "cpu" and not ahead:
            check_compiler()
        cache = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "dptn_compiled"
        with contextlib.suppress(OSError):  # else torch's own folder, which a restart of the machine empties
            cache.mkdir(parents=True, exist_ok=True)
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        from torch._inductor import config

        compiled = torch.compile(function)
        # cpp_wrapper: hundreds of calls from C++ instead of Python, 5 % of an image
        settings = {"freezing": drawing, "cpp_wrapper": drawing and self.device.type == "cpu"}

        def call(*inputs: Any) -> Any:
            with config.patch(settings):  # they are the process's, and other models have theirs
                return compiled(*inputs)

        if not ahead:
            return call
        self.ahead.append(AheadOfTime(function, nn.ModuleDict(self.nets), cache / "drawing", otherwise=call))
        return self.ahead[-1]

    def autocast(self) -> AbstractContextManager:
        dtype = PRECISIONS[self.opt.precision]
        return nullcontext() if dtype is torch.float32 else torch.autocast(self.device.type, dtype=dtype)

    def images_to_device(self, images: Tensor) -> Tensor:
        """uint8 (B,3,H,W) on the host -> the same on the device, in the chosen memory order."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return self.to_device(images).contiguous(memory_format=order)

    def to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")  # pinned memory, on CUDA only

    def save_networks(self, label: str | int, names: Iterable[str] | None = None) -> None:
        """Write `{label}_net_{name}.pth`, by default for every network, in the published format."""
        for name in names or self.nets:
            save_network(self.nets[name], self.run_dir / f"{label}_net_{name}.pth")

    def load_networks(self, directory: str | Path, label: str, names: Iterable[str] | None = None) -> None:
        """Strictly load `{label}_net_{name}.pth`; UserError if a file is missing or does not fit."""
        if self.opt.compile:
            torch.compiler.reset()  # compiled code may hold the weights of before
            for compiled in self.ahead:
                compiled.forget()
        for name in names or self.nets:
            load_network(self.nets[name], Path(directory) / f"{label}_net_{name}.pth", f"network {name}")

    def load_pretrained(self, directory: str | Path) -> list[str]:
        """Start from published weights: 'latest' of the generator, and of every other network that is there."""
        if not Path(directory).is_dir():
            raise UserError(f"--load_pretrain {directory}: no such folder")
        there = [n for n in self.nets if n == "G" or (Path(directory) / f"latest_net_{n}.pth").exists()]
        self.load_networks(directory, "latest", there)
        return there

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training step reads or changes: tensors and plain Python only."""
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo everything since `state_dict`."""
        for kind, owners in (("nets", self.nets), ("optimizers", self.optimizers), ("schedulers", self.schedulers)):
            for name, owner in owners.items():
                owner.load_state_dict(state[kind][name])
        for scheduler in self.schedulers.values():  # the schedule may have been prolonged since
            rates = [
                base * factor(scheduler.last_epoch) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas)
            ]
            for group, rate in zip(scheduler.optimizer.param_groups, rates):
                group["lr"] = rate

    def parameter_table(self) -> str:
        """Parameters of each part of each network, for people."""
        rows = []
        for name, net in self.nets.items():
            parts = {part: sum(p.numel() for p in module.parameters()) for part, module in net.named_children()}
            rows += [f"{name}.{part:<16} {number:>12,}" for part, number in parts.items()]
            rows.append(f"{name:<18} {sum(parts.values()):>12,}")
        return "\n".join(rows)

    def update_learning_rate(self) -> None:
        """Call at the end of each epoch."""
        with warnings.catch_warnings():  # a run that goes on at an epoch's end makes no step before this one
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            for scheduler in self.schedulers.values():
                scheduler.step()
