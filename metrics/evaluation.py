"""One pass over all pairs for all metrics of all protocols.

Kept in memory: one number an image and metric, and sums of features; never images.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from metrics import feature_cache
from metrics.fid import FeatureStatistics, Gaussian, InceptionScore, frechet_distance
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Problems, Sample
from metrics.protocols import DataSet, Protocol
from metrics.stream import Images, PairBatches, PhotoBatches, make_loader
from util.device import PRECISIONS
from util.errors import UserError
from util.pretrained import weights_hash


class Metric(NamedTuple):
    higher_is_better: bool
    network: str | None = None  # "alexnet", or "inception" (which one, the protocol says)
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

    `variance` is the population variance over images (of `is`: over its parts), None where there is none. `note` names
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
        """Mean of one number an image."""
        if not len(values):
            return Measurement(None, reason="no image could be measured")
        with np.errstate(invalid="ignore"):  # an infinite PSNR has no variance
            variance = float(values.var())
        error = math.sqrt(variance / (len(values) - 1)) if len(values) > 1 else None
        return Measurement(float(values.mean()), len(values), variance, error)


@dataclass
class Networks:
    """What could be loaded, on the device; the reasons why others could not; the hashes of their weights."""

    lpips: LPIPS | None = None
    inception: dict[str, Inception] = field(default_factory=dict)  # by Protocol.inception
    missing: dict[str, str] = field(default_factory=dict)  # "alexnet" or Protocol.inception -> reason
    hashes: dict[str, str] = field(default_factory=dict)

    def load(self, name: str, weights: str, device: torch.device, skip: bool) -> None:
        """`name`: "alexnet", or a Protocol.inception. With `skip`, weights that cannot be had go to `missing`."""
        try:
            net = LPIPS(weights) if name == "alexnet" else Inception(name, weights)
        except UserError as error:
            if not skip:
                raise
            self.missing[name] = str(error)
            return
        self.hashes[name] = weights_hash(net)
        net = net.to(device).to(memory_format=torch.channels_last)
        if name == "alexnet":
            self.lpips = net
        else:
            self.inception[name] = net


@dataclass
class Task:
    """What is measured, and how."""

    samples: Sequence[Sample]
    target_dir: Path
    data_set: DataSet
    protocols: Sequence[Protocol]
    metrics: Sequence[str]
    keypoints: Mapping[str, np.ndarray] | None  # of the targets, where a metric needs masks
    real_dir: Path | None  # and its photos, where FID is wanted
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
    """`values`: (protocol, metric) -> one number a sample. `measured`: bool (samples,), False for those left out."""

    results: dict[tuple[str, str], Measurement]
    values: dict[tuple[str, str], np.ndarray]
    measured: np.ndarray


def network_of(metric: str, protocol: Protocol) -> str | None:
    """The network that a metric needs under a protocol."""
    network = METRICS[metric].network
    return protocol.inception if network == "inception" else network


def evaluate(task: Task, networks: Networks, problems: Problems) -> Evaluation:
    """Measure everything. Images that cannot be used go to `problems`, which may raise."""
    total = len(task.samples)
    keys = [(protocol.name, metric) for protocol in task.protocols for metric in task.metrics]
    values = {key: np.full(total, np.nan) for key in keys if METRICS[key[1]].per_image}
    measured = np.zeros(total, bool)
    fakes = {kind: FeatureStatistics() for kind in networks.inception if "fid" in task.metrics}
    # first, so that a broken photo among them does not cost the pass over the pairs
    reals = _real_statistics(task, {kind: networks.inception[kind] for kind in fakes}, networks.hashes, problems)
    scores = {kind: InceptionScore(total) for kind in networks.inception if "is" in task.metrics}

    batches = PairBatches(
        task.samples, task.target_dir, task.data_set, task.batch_size, task.protocols, task.metrics, task.keypoints,
        keep_images=bool(networks.lpips or networks.inception),
    )  # fmt: skip
    with tqdm(total=total, desc="pairs", unit="image", disable=None) as bar, torch.inference_mode():
        for batch in make_loader(batches, task.workers):
            bar.update(min(task.batch_size, total - bar.n))
            problems.add(batch.problems)
            measured[batch.numbers] = True
            found = dict(batch.scores)
            if batch.images:
                images = Images(*(None if part is None else part.to(task.device) for part in batch.images))
                if networks.lpips:
                    found |= _distances(task, networks.lpips, images)
                for kind, net in networks.inception.items():
                    with task.autocast():
                        features = net(images.fakes)
                    if kind in fakes:
                        fakes[kind].update(features)
                    if kind in scores:
                        scores[kind].update(batch.numbers, net.probabilities(features))
            for key, numbers in found.items():
                values[key][batch.numbers] = numbers
    problems.add([], last=True)

    results = {}
    for protocol in task.protocols:
        for metric in task.metrics:
            key = (protocol.name, metric)
            if reason := networks.missing.get(network_of(metric, protocol) or ""):
                results[key] = Measurement(None, reason=reason)
            elif metric == "fid":
                fake, real = fakes[protocol.inception].compute(), reals[protocol.inception]
                results[key] = Measurement(frechet_distance(fake, real), fake.n, n_real=real.n)
            elif metric == "is":
                results[key] = Measurement.of(scores[protocol.inception].compute())
                results[key].n = int(measured.sum())
            else:
                results[key] = Measurement.of(values[key][measured])
                results[key].note = _not_finite(values[key], measured, task.samples)
    values = {key: numbers for key, numbers in values.items() if results[key].value is not None}
    return Evaluation(results, values, measured)


def _not_finite(values: np.ndarray, measured: np.ndarray, samples: Sequence[Sample]) -> str | None:
    """How many of the measured values are infinite or NaN, and the first one's sample."""
    numbers = np.flatnonzero(measured & ~np.isfinite(values))
    if not len(numbers):
        return None
    first = samples[numbers[0]]
    where = f"{first.generated.name} for {first.target}"
    return f"{len(numbers):,} of {measured.sum():,} values are not finite, first {where}"


def _distances(task: Task, net: LPIPS, images: Images) -> dict[tuple[str, str], np.ndarray]:
    """LPIPS of images as they are, and black outside their masks; the same under every protocol."""
    found = {}
    for metric in {"lpips", "mask_lpips"} & set(task.metrics):
        pair = (images.fakes, images.reals)
        if METRICS[metric].masked:
            pair = tuple(side * images.masks for side in pair)
        with task.autocast():
            distances = net(*pair).cpu().double().numpy()  # in this order: Apple's MPS has no float64
        found |= {(protocol.name, metric): distances for protocol in task.protocols}
    return found


def _real_statistics(
    task: Task, nets: Mapping[str, Inception], hashes: Mapping[str, str], problems: Problems
) -> dict[str, Gaussian]:
    """Features of the real photos, from the cache where they are there. One pass for all networks."""
    if not nets:
        return {}
    keys = {
        kind: feature_cache.cache_key(
            task.real_dir,
            task.real_names,
            {"inception": kind, "weights": hashes[kind], "precision": task.precision, "size": task.data_set.size},
        )
        for kind in nets
    }
    cached = {kind: feature_cache.load(task.cache_dir, key) for kind, key in keys.items()}
    known = {kind: statistics for kind, statistics in cached.items() if statistics}
    sums = {kind: FeatureStatistics() for kind in nets if kind not in known}
    if not sums:
        return known
    batches = PhotoBatches(task.real_dir, task.real_names, task.data_set.size, task.batch_size)
    with tqdm(total=len(task.real_names), desc="real photos", unit="image", disable=None) as bar:
        for photos, wrong in make_loader(batches, task.workers):
            bar.update(min(task.batch_size, len(task.real_names) - bar.n))
            problems.add(wrong)
            on_device = photos.to(task.device)
            for kind, statistics in sums.items():
                with task.autocast(), torch.inference_mode():
                    statistics.update(nets[kind](on_device))
    problems.add([], last=True)
    for kind, statistics in sums.items():
        known[kind] = statistics.compute()
        if statistics.n == len(task.real_names):  # what lacks photos is not to be found again
            try:
                feature_cache.save(task.cache_dir, keys[kind], known[kind])
            except UserError as error:
                print(f"warning: the features of the real photos are not kept: {error}", file=sys.stderr)
    return known
