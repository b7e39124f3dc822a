"""Frechet Inception distance (Heusel et al., NeurIPS 2017) and the Inception Score (Salimans et al., NeurIPS 2016).

Both are computed from float64 sums, so memory does not grow with the number of images, except for the bootstrap. The
statistics of the real photos are cached on disk.
"""

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from torch import Tensor

from util.errors import UserError, first_line
from util.files import atomic_write
from util.image import DECODING


class Gaussian(NamedTuple):
    """Mean (D,) and unbiased covariance (D,D), float64, of the features of `n` images."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray


class FeatureStatistics:
    """Sums over features (N,D), in any batches and order, on the features' device (Apple's MPS lacks float64: CPU).

    keep: the features themselves are kept, too, for the bootstrap.
    """

    def __init__(self, keep: bool = False) -> None:
        self.n = 0
        self.kept: list[Tensor] | None = [] if keep else None  # (N,D) each, float32

    def update(self, features: Tensor) -> None:
        features = (features.cpu() if features.device.type == "mps" else features).double()
        if not self.n:
            width = features.shape[1]
            self._sum, self._outer = features.new_zeros(width), features.new_zeros(width, width)
        self.n += len(features)
        if self.kept is not None:
            self.kept.append(features.float().cpu())
        self._sum += features.sum(0)
        self._outer.addmm_(features.T, features)

    def compute(self) -> Gaussian:
        """Raises UserError for fewer than two images."""
        if self.n < 2:
            raise UserError(f"fid needs at least 2 images on each side, got {self.n}")
        mean = self._sum / self.n
        covariance = (self._outer - self.n * mean.outer(mean)) / (self.n - 1)
        return Gaussian(self.n, mean.cpu().numpy(), covariance.cpu().numpy())


def cache_file(cache_dir: Path, folder: Path, names: Iterable[str], settings: Mapping[str, object]) -> Path:
    """Where the statistics of the photos `names` in `folder` are cached: its name is a hash of all that changes them.

    That is the name, size and modification time of each photo, and `settings`. The folder may move.
    """
    stats = [(name, (folder / name).stat()) for name in sorted(names)]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    key = hashlib.sha256(json.dumps([files, settings, DECODING], sort_keys=True).encode()).hexdigest()
    return cache_dir / f"features_{key[:32]}.npz"


def load_cached(file: Path) -> Gaussian | None:
    """The statistics in `file`; None if there is no such file, or if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as saved:
            return Gaussian(int(saved["n"]), saved["mean"], saved["covariance"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_cache(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """An atomic write of `file`; where that fails, only warn, because the evaluation does not need the cache."""
    try:
        atomic_write(file, write, flush=True)
    except UserError as error:
        print(f"warning: the features of the real photos are not cached: {error}", file=sys.stderr)


def write_statistics(file: Path, statistics: Gaussian, settings: Mapping[str, object]) -> None:
    """An npz file of `statistics` that people can publish: n, mean, covariance, and `settings` as JSON."""
    content = {**statistics._asdict(), "settings": json.dumps(settings)}
    atomic_write(file, lambda opened: np.savez(opened, **content))


def read_statistics(file: Path, settings: Mapping[str, object]) -> Gaussian:
    """What `write_statistics` wrote; UserError if that is damaged, or was measured with other `settings`."""
    try:
        with np.load(file, allow_pickle=False) as saved:
            found = dict(json.loads(str(saved["settings"])))
            statistics = Gaussian(int(saved["n"]), saved["mean"], saved["covariance"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not a file of python -m metrics.statistics ({first_line(error)})") from error
    if wrong := [
        f"{name} {found.get(name)}, not {value}" for name, value in settings.items() if found.get(name) != value
    ]:
        raise UserError(f"{file}: these statistics cannot be used here: they have {'; '.join(wrong)}")
    return statistics


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^1/2) with covariances A and B; 0 for equal sets.

    tr (A B)^1/2 is the sum of the singular values of A^1/2 B^1/2, where both roots come from symmetric eigenvalues.
    This does not amplify the rounding of eigenvalues near 0, which are many if there are fewer images than features.
    """
    trace_of_root = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance) - 2 * trace_of_root
    return max(float(distance), 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


class InceptionScore:
    """exp of the mean KL divergence of an image's class probabilities from their average, in 10 splits as usual.

    An image's split follows from its index among the `n` expected ones, so batches and their order do not matter.
    """

    SPLITS = 10

    def __init__(self, n: int) -> None:
        self.expected = n
        # (splits, 2 + classes) after the first update: count, sum of p log p, sums of p by class
        self._sums = np.zeros((self.SPLITS, 1))

    def update(self, indices: np.ndarray, probabilities: Tensor) -> None:
        """`indices` (N,) of the images in 0..n-1; their `probabilities` (N,classes) float64."""
        p = probabilities.numpy()
        rows = np.column_stack([np.ones(len(p)), (p * np.log(p.clip(1e-300))).sum(1), p])
        added = np.zeros((self.SPLITS, rows.shape[1]))
        np.add.at(added, indices * self.SPLITS // self.expected, rows)
        self._sums = self._sums + added

    def compute(self) -> np.ndarray:
        """The score of each split that got images."""
        counts, p_log_p, p = np.split(self._sums[self._sums[:, 0] > 0], (1, 2), axis=1)
        q = p / counts
        return np.exp((p_log_p / counts).ravel() - (q * np.log(q.clip(1e-300))).sum(1))
