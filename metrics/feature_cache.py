"""On-disk cache of the Inception statistics of a folder of photos; its key covers everything that changes them."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from metrics.fid import Gaussian
from util.files import atomic_write


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dptn_metrics"


def cache_key(folder: Path, names: Iterable[str], settings: Mapping[str, object]) -> str:
    """SHA-256 over name, size and modification time of each photo, and over `settings`. The folder may move."""
    stats = [(name, (folder / name).stat()) for name in sorted(names)]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(json.dumps([files, settings], sort_keys=True).encode()).hexdigest()


def load(cache_dir: Path, key: str) -> Gaussian | None:
    """The statistics that were saved under `key`; None if there are none, or if the file is damaged."""
    try:
        with np.load(_file(cache_dir, key), allow_pickle=False) as saved:
            return Gaussian(int(saved["n"]), saved["mean"], saved["covariance"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save(cache_dir: Path, key: str, statistics: Gaussian) -> None:
    atomic_write(_file(cache_dir, key), lambda file: np.savez(file, **statistics._asdict()))


def _file(cache_dir: Path, key: str) -> Path:
    return cache_dir / f"features_{key[:32]}.npz"
