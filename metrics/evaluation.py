"""One pass over all pairs for all metrics of all protocols.

Memory holds one number per image and metric, and sums of features; never all images.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data import find_dataset
from metrics import feature_cache
from metrics.fid import FeatureStatistics, Gaussian, InceptionScore, frechet_distance
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Problems, Sample
from metrics.protocols import PROTOCOLS, Protocol
from metrics.stream import PairDataset, PhotoDataset, load_batches
from util.device import PRECISIONS
from util.errors import UserError
from util.pretrained import weights_hash


class Metric(NamedTuple):
    higher_is_better: bool
    network: str | None = None  # "alexnet", or "inception" (the protocol chooses which)
    masked: bool = False
    per_image: bool = True


METRICS = {
    "psnr": Metric(True),
    "ssim": Metric(True),
    "ssim_256": Metric(True),
    "mae": Metric(False),
    "l1": Metric(False),
    "fid": Metric(False, "inception", per_image=False),
    "lpips": Metric(False, "alexnet"),
    "mask_ssim": Metric(True, masked=True),
    "mask_psnr": Metric(True, masked=True),
    "mask_lpips": Metric(False, "alexnet", masked=True),
    "is": Metric(True, "inception", per_image=False),
}
MASKED = [name for name, metric in METRICS.items() if metric.masked]
DEFAULT = ["psnr", "ssim", "ssim_256", "mae", "l1", "fid", "lpips"]


@dataclass
class Measurement:
    """A metric's value over `n` images; `reason` says why it was not measured, if so.

    `variance` is the population variance over images (of `is`: over its splits), None where there is none. `note` names
    what makes the value infinite or undefined.
    """

    value: float | None
    n: int = 0
    variance: float | None = None
    standard_error: float | None = None
    n_real: int | None = None  # fid: how many real photos
    reason: str | None = None
    note: str | None = None

    @staticmethod
    def of(values: np.ndarray) -> "Measurement":
        """Mean of one number per image."""
        if not len(values):
            return Measurement(None, reason="no image could be measured")
        with np.errstate(invalid="ignore"):  # an infinite PSNR has no variance
            variance = float(values.var())
        error = math.sqrt(variance / (len(values) - 1)) if len(values) > 1 else None
        return Measurement(float(values.mean()), len(values), variance, error)


@dataclass
class Networks:
    """The loaded networks by name ("alexnet", or a Protocol.inception), and why others are not loaded."""

    loaded: dict[str, LPIPS | Inception] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # name -> reason
    hashes: dict[str, str] = field(default_factory=dict)  # of the loaded weights

    def load(self, name: str, weights: str, device: torch.device, skip: bool) -> None:
        """With `skip`, unavailable weights are noted in `missing`; UserError otherwise."""
        try:
            net = LPIPS(weights) if name == "alexnet" else Inception(name, weights)
        except UserError as error:
            if not skip:
                raise
            self.missing[name] = str(error)
            return
        self.hashes[name] = weights_hash(net)
        self.loaded[name] = net.to(device).to(memory_format=torch.channels_last)

    def inceptions(self) -> dict[str, Inception]:
        return {name: net for name, net in self.loaded.items() if name != "alexnet"}


@dataclass
class Task:
    """What is measured, and how."""

    samples: Sequence[Sample]
    target_dir: Path
    data_set: str
    protocols: Sequence[Protocol]
    metrics: Sequence[str]
    keypoints: Mapping[str, np.ndarray] | None  # target name -> (18,2), for mask metrics
    real_dir: Path | None  # for fid
    real_names: Sequence[str]
    cache_dir: Path
    device: torch.device
    precision: str
    batch_size: int
    workers: int

    def autocast(self) -> AbstractContextManager:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])


@dataclass
class Evaluation:
    """`values`: a row for each measured sample, by its index, and a column for each (protocol, metric)."""

    results: dict[tuple[str, str], Measurement]
    values: pd.DataFrame


def network_of(metric: str, protocol: Protocol) -> str | None:
    """The network that a metric needs under a protocol."""
    network = METRICS[metric].network
    return protocol.inception if network == "inception" else network


@torch.inference_mode()
def evaluate(task: Task, networks: Networks, problems: Problems) -> Evaluation:
    """Measure everything. Images that cannot be used go to `problems`, which may raise."""
    reals = _real_statistics(task, networks, problems)  # before the pairs, so that a broken training photo fails early
    evaluator = _Evaluator(task, networks)
    pairs = PairDataset(
        task.samples, task.target_dir, task.data_set, task.protocols, task.metrics, task.keypoints,
        keep_images=bool(networks.loaded),
    )  # fmt: skip
    for batch in load_batches(pairs, task.batch_size, task.workers, "pairs", problems):
        evaluator.update(batch)
    return evaluator.compute(reals)


class _Evaluator:
    """The state of the pass over all pairs."""

    def __init__(self, task: Task, networks: Networks) -> None:
        self.task, self.networks = task, networks
        self.values: list[pd.DataFrame] = []
        kinds = networks.inceptions()
        self.features = {kind: FeatureStatistics() for kind in kinds if "fid" in task.metrics}
        self.scores = {kind: InceptionScore(len(task.samples)) for kind in kinds if "is" in task.metrics}

    def update(self, batch: dict[str, Any]) -> None:
        """`batch`: as collated from PairDataset."""
        indices = batch["index"].numpy()
        values = {key: scores.numpy() for key, scores in batch["scores"].items()}
        images = {name: batch[name].to(self.task.device) for name in ("fakes", "reals", "masks") if name in batch}
        for name, net in self.networks.loaded.items():
            if name == "alexnet":
                values |= self._distances(net, **images)
            else:
                self._update_features(name, net, images["fakes"], indices)
        self.values.append(pd.DataFrame(values, index=indices))

    def _distances(
        self, net: LPIPS, fakes: Tensor, reals: Tensor, masks: Tensor | None = None
    ) -> dict[tuple[str, str], np.ndarray]:
        """LPIPS of whole images, and of images that are black outside their masks; the same under every protocol."""
        distances = {}
        for metric in {"lpips", "mask_lpips"} & set(self.task.metrics):
            visible = masks if METRICS[metric].masked else 1
            with self.task.autocast():
                values = net(fakes * visible, reals * visible)
            values = values.cpu().double().numpy()  # in this order: Apple's MPS has no float64
            distances |= {(protocol.name, metric): values for protocol in self.task.protocols}
        return distances

    def _update_features(self, kind: str, net: Inception, fakes: Tensor, indices: np.ndarray) -> None:
        with self.task.autocast():
            features = net(fakes)
        if kind in self.features:
            self.features[kind].update(features)
        if kind in self.scores:
            self.scores[kind].update(indices, net.probabilities(features))

    def compute(self, reals: Mapping[str, Gaussian]) -> Evaluation:
        """`reals`: statistics of the real photos by Protocol.inception, where fid is wanted."""
        keys = [(protocol.name, metric) for protocol in self.task.protocols for metric in self.task.metrics]
        values = pd.concat(self.values) if self.values else pd.DataFrame(columns=keys, dtype=float)
        results = {key: self._measure(*key, values, reals) for key in keys}
        return Evaluation(results, values[[key for key in keys if key in values]])

    def _measure(self, protocol: str, metric: str, values: pd.DataFrame, reals: Mapping[str, Gaussian]) -> Measurement:
        network = network_of(metric, PROTOCOLS[protocol])
        if network in self.networks.missing:
            return Measurement(None, reason=self.networks.missing[network])
        if metric == "fid":
            fake, real = self.features[network].compute(), reals[network]
            return Measurement(frechet_distance(fake, real), fake.n, n_real=real.n)
        if metric == "is":
            return replace(Measurement.of(self.scores[network].compute()), n=len(values))
        measurement = Measurement.of(values[protocol, metric].to_numpy())
        return replace(measurement, note=self._note_on_undefined(values[protocol, metric]))

    def _note_on_undefined(self, values: pd.Series) -> str | None:
        """How many values are infinite or NaN, and the first one's sample."""
        undefined = values.index[~np.isfinite(values)]
        if undefined.empty:
            return None
        first = self.task.samples[undefined[0]]
        where = f"{first.generated.name} for {first.target}"
        return f"{len(undefined):,} of {len(values):,} values are not finite, first {where}"


def _real_statistics(task: Task, networks: Networks, problems: Problems) -> dict[str, Gaussian]:
    """Protocol.inception -> statistics of the real photos, from the cache where possible; one pass for the others."""
    nets = networks.inceptions() if "fid" in task.metrics else {}
    size = find_dataset(task.data_set).stored_size
    keys = {}
    for kind in nets:
        settings = {"inception": kind, "weights": networks.hashes[kind], "precision": task.precision, "size": size}
        keys[kind] = feature_cache.cache_key(task.real_dir, task.real_names, settings)
    known = {kind: found for kind, key in keys.items() if (found := feature_cache.load(task.cache_dir, key))}
    sums = {kind: FeatureStatistics() for kind in nets if kind not in known}
    if not sums:
        return known
    photos = PhotoDataset(task.real_dir, task.real_names, size)
    for batch in load_batches(photos, task.batch_size, task.workers, "real photos", problems):
        images = batch.to(task.device)
        for kind, statistics in sums.items():
            with task.autocast():
                statistics.update(nets[kind](images))
    for kind, statistics in sums.items():
        known[kind] = statistics.compute()
        if statistics.n == len(photos):  # statistics without some photos must not be found in the cache
            _save_statistics(task.cache_dir, keys[kind], known[kind])
    return known


def _save_statistics(cache_dir: Path, key: str, statistics: Gaussian) -> None:
    try:
        feature_cache.save(cache_dir, key, statistics)
    except UserError as error:
        print(f"warning: the features of the real photos are not cached: {error}", file=sys.stderr)
