"""Tensor files, read safely (no code is ever run) and written atomically; the training state for exact resume."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util import distributed
from util.errors import UserError
from util.files import atomic_write
from util.reproducibility import git_revision, random_state, seed_everything, set_random_state, versions


def load_file(path: str | Path, what: str) -> Any:
    """What `torch.save` wrote, on the CPU; a UserError says which file is missing or damaged and what it is."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {what} not found. Check the path and the name of the run.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load can raise anything for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: {what} cannot be read; the file is damaged or not a tensor file ({reason})"
        ) from error


def load_tensors(path: str | Path, what: str) -> dict[str, Tensor]:
    """A plain state dict: names to tensors."""
    state = load_file(path, what)
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: expected a state dict (names to tensors) as {what}, got {type(state).__name__}")
    return state


def save_file(content: Any, path: str | Path) -> None:
    """`torch.save`, whole or not at all, flushed to disk; a failed write is a UserError."""
    atomic_write(path, lambda file: torch.save(content, file), flush=True)


FORMAT = 1
KEYS = {"format", "progress", "model", "random", "options", "data", "git", "versions"}


@dataclass
class Progress:
    """Where a run stands: `batches_done` of `epoch` (from 1), `total` samples since the start."""

    epoch: int = 1
    batches_done: int = 0
    total: int = 0
    validated: int = 0  # the last epoch whose validation is done
    best_ssim: float = -1.0

    def next_epoch(self) -> None:
        self.epoch, self.batches_done = self.epoch + 1, 0


def save_state(
    path: Path, progress: Progress, model: dict[str, Any], options: dict[str, Any], data: dict[str, Any]
) -> None:
    """`data`: the data set's fingerprint. Every process takes part (each has its random numbers); process 0 writes."""
    content = {
        "format": FORMAT,
        "progress": asdict(progress),
        "model": model,
        "random": distributed.gather(random_state()),
        "options": options,
        "data": data,
        "git": git_revision(),
        "versions": versions(),
    }
    distributed.run_on_main(lambda: save_file(content, path))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote; UserError if it is missing, damaged or of another format."""
    if not path.is_file():
        raise UserError(
            f"--continue_train: {path} not found, so there is no run to go on with. Check --name and "
            "--checkpoints_dir; to start from weights alone, use --load_pretrain DIR."
        )
    state = load_file(path, "the state of the run")
    if not isinstance(state, dict) or set(state) != KEYS or state["format"] != FORMAT:
        raise UserError(f"{path}: not a state of format {FORMAT} that train.py wrote")
    return state


def check_data(state: dict[str, Any], data: dict[str, Any]) -> None:
    """UserError if the run was trained on other csv files: its next batches could not be found again."""
    if state["data"] != data:
        raise UserError(
            f"--continue_train: the csv files of the data set changed since the run was saved: {state['data']} then, "
            f"{data} now. Put the old files back, or start another run with --load_pretrain"
        )


def restore_random(state: dict[str, Any]) -> None:
    """The random numbers of this process, if the run had as many processes as now; else fresh ones."""
    if len(state["random"]) == distributed.processes():
        set_random_state(state["random"][distributed.rank()])
    else:
        seed_everything(state["options"]["seed"] + state["progress"]["total"] + distributed.rank())
