"""Tensor files: read safely (no code is ever run), written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.errors import UserError
from util.files import write_whole


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
    write_whole(path, lambda file: torch.save(content, file), flush=True)
