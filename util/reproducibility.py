"""Seeds, the states of random number generators, and the versions that a run used."""

import os
import platform
import random
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the random number generators of Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def use_deterministic_kernels() -> None:
    """Let every operation on CUDA give the same bits in every run, or raise. Call it before the first one.

    On a CPU they do so anyway. Source: PyTorch's notes on reproducibility.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # every kernel here writes all of its output


def random_state() -> dict[str, Any]:
    """The states of all random number generators, as tensors and plain Python (so `weights_only=True` loads them)."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned; the state of a device that this machine lacks is ignored."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def git_revision() -> dict[str, Any]:
    """The commit of this code, and whether tracked files differ from it; empty if git does not track this code."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:  # the first command fails where an outer repository does not track this code
        subprocess.check_output([*git, "ls-files", "--error-unmatch", Path(__file__).name], stderr=subprocess.DEVNULL)
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True)
        changes = subprocess.check_output([*git, "status", "--porcelain", "-uno"], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit.strip(), "changed": bool(changes)}


def versions(*more: str) -> dict[str, str]:
    """The versions of Python, the platform and the packages that results depend on, and of `more` packages."""
    packages = {name: _version(name) for name in ("torch", "torchvision", "numpy", "pillow", "scikit-image", *more)}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
