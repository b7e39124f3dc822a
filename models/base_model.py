"""What every model shares: device, precision, compilation, learning rates, saving and loading."""

import warnings
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_map_only

from models import cpu_compile
from models.cuda_graph import GraphedStep
from models.published_weights import load_network, save_network
from models.weight_average import WeightAverage
from util import distributed
from util.device import PRECISIONS, use_precision
from util.errors import UserError


class BaseModel(ABC):
    """A model owns `nets` ('G', and 'D' in training), `optimizers` and `schedulers` under the same names.

    A training step leaves its scalar `losses` on the device, by name.
    """

    visual_names: tuple[str, ...]  # titles of the columns of `get_current_visuals`
    losses: dict[str, Tensor]

    def __init__(self, opt: Namespace, device: torch.device, is_train: bool) -> None:
        self.opt, self.device, self.is_train = opt, device, is_train
        self.nets: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.schedulers: dict[str, LambdaLR] = {}
        self.ema: WeightAverage | None = None  # of the generator, with --ema
        self.cached_inferences: list[cpu_compile.CachedInference] = []
        self.run_dir = Path(opt.checkpoints_dir) / opt.name
        # On CUDA eager instance norm makes its input contiguous, which costs about what convolutions gain.
        faster = device.type == "cpu" or (device.type == "cuda" and opt.compile)
        self.channels_last = faster if opt.channels_last is None else opt.channels_last
        self.precision = use_precision(opt.precision, device)
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()

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
        """Generate images (B,3,H,W) in [-1, 1], float32, without gradients, for the batch of `set_input`."""

    @abstractmethod
    def optimize_parameters(self) -> None:
        """Make one training step on the batch of `set_input`."""

    @abstractmethod
    def get_current_losses(self) -> dict[str, float]:
        """Losses of the last step by name, averaged over all processes, in the log's order. Waits for the device."""

    @abstractmethod
    def get_current_visuals(self) -> list[list[Image.Image]]:
        """Images of the last step: a row for each of the first samples, with the columns of `visual_names`."""

    @property
    def unused_losses(self) -> set[str]:
        """Names of losses that the console and the page leave out; the log files have all."""
        return set()

    def prepare(self, net: nn.Module) -> nn.Module:
        """Move a network to the device, in the chosen memory format and mode."""
        net = net.to(self.device).train(self.is_train)
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def compile(self, function: Callable) -> Callable:
        """Wrap `function` in torch.compile if --compile is set.

        In inference the weights become constants of the compiled code; on a Linux CPU that code is cached on disk.
        UserError, at once or at the first call, where a CPU has no C++ compiler.
        """
        if not self.opt.compile:
            return function
        compiled = cpu_compile.compile_function(
            function, nn.ModuleDict(self.nets), self.device, self.is_train, self.opt.compile_mode
        )
        if isinstance(compiled, cpu_compile.CachedInference):
            self.cached_inferences.append(compiled)
        return compiled

    def graphed_step(self, inputs: Callable[[], Sequence[Tensor]]) -> GraphedStep:
        """`optimize_parameters` as one CUDA graph for --cuda_graph; UserError where that cannot work."""
        if self.device.type != "cuda" or distributed.processes() > 1:
            raise UserError("--cuda_graph needs a CUDA GPU and a single process; leave it out, or give --no-cuda_graph")
        return GraphedStep(self.optimize_parameters, inputs, self.optimizers.values(), self.device)

    def autocast(self) -> AbstractContextManager:
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is torch.float32 else torch.autocast(self.device.type, dtype=dtype)

    def images_to_device(self, images: Tensor) -> Tensor:
        """uint8 (B,3,H,W) on the host -> the same on the device, in the chosen memory format."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return self.to_device(images).contiguous(memory_format=memory_format)

    def to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")  # the loader pins memory for CUDA

    def save_networks(self, label: str | int) -> None:
        """Write `{label}_net_{name}.pth` for every network, in the published format."""
        for name, net in self.nets.items():
            save_network(net, self.run_dir / f"{label}_net_{name}.pth")

    def save_average(self) -> None:
        """With --ema, write the generator's averaged weights as `ema_net_G.pth`."""
        if self.ema is not None:
            save_network(self.ema.average, self.run_dir / "ema_net_G.pth")

    def load_networks(self, directory: str | Path, label: str, names: Iterable[str] | None = None) -> None:
        """Strictly load `{label}_net_{name}.pth`; UserError if a file is missing or does not fit."""
        if self.opt.compile:
            torch.compiler.reset()  # compiled code may hold the previous weights
            for compiled in self.cached_inferences:
                compiled.clear()
        for name in names or self.nets:
            load_network(self.nets[name], Path(directory) / f"{label}_net_{name}.pth", f"network {name}")

    def load_initial_weights(self, directory: str | Path) -> list[str]:
        """Start from weights in `directory`: 'latest' of the generator, and of the discriminator if its file exists.

        Returns the names of the networks that were loaded.
        """
        if not Path(directory).is_dir():
            raise UserError(f"--load_pretrain {directory}: no such folder")
        found = [n for n in self.nets if n == "G" or (Path(directory) / f"latest_net_{n}.pth").exists()]
        self.load_networks(directory, "latest", found)
        if self.ema is not None:
            self.ema.restart()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training step reads or changes: tensors and plain Python only."""
        ema = {} if self.ema is None else {"ema": self.ema.average.state_dict()}
        return ema | {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "optimizers": {name: _plain_rates(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "schedulers": {name: _plain_rates(scheduler.state_dict()) for name, scheduler in self.schedulers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, on any device."""
        for name, net in self.nets.items():
            net.load_state_dict(state["nets"][name])
            self.schedulers[name].load_state_dict(state["schedulers"][name])
            optimizer = self.optimizers[name]
            stored = state["optimizers"][name]
            # `fused`, `capturable` and whether the rate is a tensor belong to this process, not to the checkpoint.
            own = [{key: group[key] for key in ("fused", "capturable", "lr")} for group in optimizer.param_groups]
            groups = [group | settings for group, settings in zip(stored["param_groups"], own)]
            optimizer.load_state_dict({**stored, "param_groups": groups})
            for parameter, moments in optimizer.state.items():  # fused Adam wants the memory format of the weights
                for key in ("exp_avg", "exp_avg_sq"):
                    moments[key] = torch.empty_like(parameter).copy_(moments[key])
            _set_learning_rates(self.schedulers[name])
        if self.ema is not None:
            self.ema.average.load_state_dict(state.get("ema", state["nets"]["G"]))

    def parameter_table(self) -> str:
        """The number of parameters of each child of each network, one a line."""
        rows = []
        for name, net in self.nets.items():
            counts = {child: sum(p.numel() for p in module.parameters()) for child, module in net.named_children()}
            rows += [f"{name}.{child:<16} {number:>12,}" for child, number in counts.items()]
            rows.append(f"{name:<18} {sum(p.numel() for p in net.parameters()):>12,}")
        return "\n".join(rows)

    def update_learning_rate(self) -> str:
        """Advance the schedules at the end of an epoch. Returns a line for the log, '' if no learning rate changes."""
        before = self.learning_rates()
        with warnings.catch_warnings():  # a run resumed at an epoch's end has made no step yet
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            for scheduler in self.schedulers.values():
                scheduler.step()
        after = self.learning_rates()
        changes = [f"{name} {before[name]:.3g} -> {after[name]:.3g}" for name in after if after[name] != before[name]]
        return f"learning rates: {', '.join(changes)}" if changes else ""

    def learning_rates(self) -> dict[str, float]:
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self.optimizers.items()}


def _set_learning_rates(scheduler: LambdaLR) -> None:
    """Set the rates of the scheduler's epoch by --niter and --niter_decay, which a resumed run may change."""
    for group, base, factor in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas):
        rate = base * factor(scheduler.last_epoch)
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate


def _plain_rates(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict of an optimizer or scheduler, with learning rates as plain numbers (see models/cuda_graph.py)."""
    return {key: value if key == "state" else tree_map_only(Tensor, float, value) for key, value in state.items()}
