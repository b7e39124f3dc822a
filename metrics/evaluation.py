"""One pass over all pairs for all metrics of all protocols.

Memory holds one number per image and metric, and sums of features (with --bootstrap the features of the generated
images, too); never all images.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data import find_dataset
from data.pairs import result_name
from metrics import fid
from metrics.bootstrap import Interval, fid_draws, interval, mean_draws
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pairing import Problems
from metrics.protocols import Protocol
from metrics.resize import opencv_bilinear
from metrics.stream import PairDataset, PhotoDataset, load_batches
from util.device import PRECISIONS
from util.errors import UserError
from util.pretrained import weights_hash


class Metric(NamedTuple):
    higher_is_better: bool
    network: str | None = None  # "alexnet", or "inception" (the protocol chooses which)
    per_image: bool = True


METRICS = {
    "psnr": Metric(True),
    "ssim": Metric(True),
    "ssim_256": Metric(True),
    "mae": Metric(False),
    "l1": Metric(False),
    "fid": Metric(False, "inception", per_image=False),
    "lpips": Metric(False, "alexnet"),
    "mask_ssim": Metric(True),
    "mask_psnr": Metric(True),
    "mask_lpips": Metric(False, "alexnet"),
    "is": Metric(True, "inception", per_image=False),
}
MASKED = [name for name in METRICS if name.startswith("mask_")]
DEFAULT = ["psnr", "ssim", "ssim_256", "mae", "l1", "fid", "lpips"]


@dataclass
class Measurement:
    """A metric's value over `n` images, or the reason why it was not measured.

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
    interval: Interval | None = None  # with --bootstrap

    @staticmethod
    def of(values: np.ndarray) -> "Measurement":
        """Mean of `values` (n,): a number per image, or of `is` per split."""
        if not len(values):
            return Measurement(None, reason="no image could be measured")
        with np.errstate(invalid="ignore"):  # an infinite PSNR has no variance
            variance = float(values.var())
        error = math.sqrt(variance / (len(values) - 1)) if len(values) > 1 else None
        return Measurement(float(values.mean()), len(values), variance, error)


@dataclass
class EvaluationSetup:
    """What is measured, and where and in which precision the networks run."""

    pairs: PairDataset
    real_photos: PhotoDataset | None  # for fid; each protocol has its own view of them
    real_file: Path | None  # for fid, instead of photos: statistics by `python -m metrics.statistics`
    cache_dir: Path
    device: torch.device
    precision: str
    batch_size: int
    workers: int
    bootstrap: int = 0  # resamples of the pairs; 0: no intervals
    baseline: bool = False  # whether the images are those of a --baseline, without names of their own

    def autocast(self) -> AbstractContextManager:
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is torch.float32 else torch.autocast(self.device.type, dtype=dtype)


@dataclass
class Networks:
    """The networks that were loaded, and why others are missing. Names: "alexnet" and those of Protocol.inception."""

    loaded: dict[str, LPIPS | Inception] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # name -> reason
    weights: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> source and sha256 of what was loaded


Measurements = dict[str, dict[str, Measurement]]  # by protocol and metric


class Evaluation(NamedTuple):
    """What `evaluate` measured.

    values: of single images: a row for each measured sample, by its index, and a column for each (protocol, metric).
    draws: with --bootstrap, each (protocol, metric) as measured in each draw of pairs.
    """

    measurements: Measurements
    values: pd.DataFrame
    draws: dict[tuple[str, str], np.ndarray]


def network_of(metric: str, protocol: Protocol) -> str | None:
    """The network that a metric needs under a protocol; None also where the protocol does not have the metric."""
    if not protocol.has(metric):
        return None
    network = METRICS[metric].network
    return protocol.inception if network == "inception" else network


def load_networks(setup: EvaluationSetup, sources: Mapping[str, str], skip_unavailable: bool) -> Networks:
    """Load the networks that the metrics need. `sources`: the value of each network's weights flag.

    With `skip_unavailable`, weights that cannot be loaded are listed in `missing`; otherwise they raise UserError.
    """
    networks = Networks()
    wanted = [network_of(metric, protocol) for protocol in setup.pairs.protocols for metric in setup.pairs.metrics]
    for name in dict.fromkeys(filter(None, wanted)):
        try:
            # "tensorflow" has no source: Inception refuses it
            net = LPIPS(sources[name]) if name == "alexnet" else Inception(name, sources.get(name, ""))
        except UserError as error:
            if not skip_unavailable:
                raise
            networks.missing[name] = str(error)
            continue
        networks.weights[name] = {"source": sources[name], "sha256": weights_hash(net)}
        networks.loaded[name] = net.to(setup.device).to(memory_format=torch.channels_last)
    return networks


@torch.inference_mode()
def evaluate(setup: EvaluationSetup, networks: Networks, problems: Problems) -> Evaluation:
    """Measure everything. Images that cannot be used go to `problems`, which may raise."""
    # the real photos come first, so that a broken one fails early
    real_gaussians = {
        protocol.name: real_statistics(setup, networks, protocol, problems)
        for protocol in setup.pairs.protocols
        if "fid" in setup.pairs.metrics and network_of("fid", protocol) in networks.loaded
    }
    evaluator = _Evaluator(setup, networks, real_gaussians)
    for batch in load_batches(setup.pairs, setup.batch_size, setup.workers, "pairs", problems):
        evaluator.update(batch)
    return evaluator.compute()


def real_settings(setup: EvaluationSetup, networks: Networks, protocol: Protocol) -> dict[str, Any]:
    """All that the statistics of the real photos' features depend on, but for the photos."""
    view = protocol.view(setup.pairs.dataset_mode)
    return {
        "inception": protocol.inception, "weights": networks.weights[protocol.inception]["sha256"],
        "precision": setup.precision, "size": list(view.size), "filter": view.photos, "fid_batch": protocol.fid_batch,
        "network_size": list(find_dataset(setup.pairs.dataset_mode).stored_size) if protocol.network_resize else None,
    }  # fmt: skip


def real_statistics(setup: EvaluationSetup, networks: Networks, protocol: Protocol, problems: Problems) -> fid.Gaussian:
    """Statistics of the real photos' features, from a file or the cache if possible."""
    settings = real_settings(setup, networks, protocol)
    if setup.real_file:
        return fid.read_statistics(setup.real_file, {"protocol": protocol.name, **settings})
    kind, view = protocol.inception, protocol.view(setup.pairs.dataset_mode)
    names = setup.real_photos.names[: _in_full_batches(len(setup.real_photos), protocol.fid_batch)]  # they are sorted
    photos = PhotoDataset(setup.real_photos.folder, names, view)
    file = fid.cache_file(setup.cache_dir, photos.folder, photos.names, settings)
    if cached := fid.load_cached(file):
        return cached
    sums = fid.FeatureStatistics()
    for batch in load_batches(photos, setup.batch_size, setup.workers, "real photos", problems):
        with setup.autocast():
            sums.update(networks.loaded[kind](_for_networks(batch.to(setup.device), protocol, setup)))
    statistics = sums.compute()
    if sums.n == len(photos):  # statistics without some photos must not be found in the cache
        fid.write_cache(file, lambda opened: np.savez(opened, **statistics._asdict()))
    return statistics


def _for_networks(images: Tensor, protocol: Protocol, setup: EvaluationSetup) -> Tensor:
    """Images (N,3,H,W) of a protocol's view as LPIPS and Inception see them."""
    size = find_dataset(setup.pairs.dataset_mode).stored_size
    return opencv_bilinear(images, size) if protocol.network_resize else images


def _in_full_batches(n: int, batch: int) -> int:
    """How many of `n` images count where the last partial batch is dropped; a single partial batch is kept."""
    return n - n % min(batch, n)


class _Evaluator:
    """The state of the pass over all pairs. `real_gaussians`: of the real photos by protocol, for fid."""

    def __init__(self, setup: EvaluationSetup, networks: Networks, real_gaussians: Mapping[str, fid.Gaussian]) -> None:
        self.setup, self.networks, self.real_gaussians = setup, networks, real_gaussians
        self.metrics, self.protocols = setup.pairs.metrics, setup.pairs.protocols
        self.values: list[pd.DataFrame] = []
        self.draws: dict[tuple[str, str], np.ndarray] = {}
        self.features = {protocol.name: fid.FeatureStatistics(keep=setup.bootstrap > 0) for protocol in self.protocols}
        self.inception_scores = {protocol.name: fid.InceptionScore(len(setup.pairs)) for protocol in self.protocols}
        # protocols whose networks see the same images
        self.groups: dict[tuple, list[Protocol]] = defaultdict(list)
        for protocol in self.protocols:
            key = protocol.view(setup.pairs.dataset_mode), protocol.network_resize, protocol.lpips_input
            self.groups[key].append(protocol)
        samples = setup.pairs.samples
        # for a baseline, the names that results would have
        names = pd.Series([result_name(s.source, s.target) if setup.baseline else s.generated.name for s in samples])
        self.rank = (names.rank(method="first") - 1).to_numpy()  # by file name: the last ones are dropped

    def update(self, batch: dict[str, Any]) -> None:
        """`batch`: as collated from PairDataset."""
        indices = batch["index"].numpy()
        values = {key: scores.numpy() for key, scores in batch["scores"].items()}
        masks = batch["masks"].to(self.setup.device) if "masks" in batch else None
        for protocols in self.groups.values() if self.setup.pairs.keep_images else ():
            view = protocols[0].view(self.setup.pairs.dataset_mode)
            sides = (batch[side][view].to(self.setup.device) for side in ("fakes", "reals"))
            fakes, reals = (_for_networks(images, protocols[0], self.setup) for images in sides)
            values |= self._distances(protocols, fakes, reals, masks)
            self._add_features(protocols, fakes, indices)
        self.values.append(pd.DataFrame(values, index=indices))

    def _distances(
        self, protocols: list[Protocol], fakes: Tensor, reals: Tensor, masks: Tensor | None
    ) -> dict[tuple[str, str], np.ndarray]:
        """LPIPS of whole images, and of images that are gray outside their masks; the same for all `protocols`."""
        distances = {}
        for metric in ("lpips", "mask_lpips"):
            wanted = [protocol for protocol in protocols if self._is_wanted(metric, protocol)]
            if wanted and "alexnet" in self.networks.loaded:
                visible = masks if metric in MASKED else None
                with self.setup.autocast():
                    values = self.networks.loaded["alexnet"](fakes, reals, visible, wanted[0].lpips_input == "[0, 1]")
                values = values.cpu().double().numpy()  # in this order: Apple's MPS has no float64
                distances |= {(protocol.name, metric): values for protocol in wanted}
        return distances

    def _add_features(self, protocols: list[Protocol], fakes: Tensor, indices: np.ndarray) -> None:
        """Inception features, of which each network's are the same for all `protocols`."""
        for kind, net in self.networks.loaded.items():
            using = [protocol for protocol in protocols if protocol.inception == kind]
            if using:
                with self.setup.autocast():
                    features = net(fakes)
            for protocol in using:
                if self._is_wanted("fid", protocol):
                    self.features[protocol.name].update(features[self._is_in_full_batch(indices, protocol.fid_batch)])
                if self._is_wanted("is", protocol):
                    self.inception_scores[protocol.name].update(indices, net.probabilities(features))

    def _is_wanted(self, metric: str, protocol: Protocol) -> bool:
        return metric in self.metrics and protocol.has(metric)

    def _is_in_full_batch(self, indices: np.ndarray, batch: int) -> np.ndarray:
        """(N,) bool: which of these samples, in the order of file names, are in one of the full batches."""
        return self.rank[indices] < _in_full_batches(len(self.rank), batch)

    def compute(self) -> Evaluation:
        keys = [(protocol.name, metric) for protocol in self.protocols for metric in self.metrics]
        values = pd.concat(self.values) if self.values else pd.DataFrame(columns=keys, dtype=float)
        measurements = {
            protocol.name: {metric: self._measure(metric, protocol, values) for metric in self.metrics}
            for protocol in self.protocols
        }
        return Evaluation(measurements, values[[key for key in keys if key in values]], self.draws)

    def _measure(self, metric: str, protocol: Protocol, values: pd.DataFrame) -> Measurement:
        if not protocol.has(metric):
            return Measurement(None, reason=f"the code of {protocol.name} has no {metric}")
        network = network_of(metric, protocol)
        if network in self.networks.missing:
            return Measurement(None, reason=self.networks.missing[network])
        if metric == "fid":
            fake, real = self.features[protocol.name].compute(), self.real_gaussians[protocol.name]
            measurement = Measurement(fid.frechet_distance(fake, real), fake.n, n_real=real.n)
            if self.setup.bootstrap:
                draws = fid_draws(torch.cat(self.features[protocol.name].kept), real, self.setup.bootstrap)
                self._add_interval(measurement, protocol, metric, draws)
            return measurement
        if metric == "is":
            return replace(Measurement.of(self.inception_scores[protocol.name].compute()), n=len(values))
        column = values[protocol.name, metric]
        if network == "alexnet":
            column = column[self._is_in_full_batch(column.index.to_numpy(), protocol.lpips_batch)]
        measurement = Measurement.of(column.to_numpy())
        if len(undefined := column.index[~np.isfinite(column)]):
            first = self.setup.pairs.samples[undefined[0]]
            where = f"first {first.generated.name} for {first.target}"
            measurement.note = f"{len(undefined):,} of {len(column):,} values are not finite, {where}"
        elif self.setup.bootstrap and measurement.n > 1:
            draws = mean_draws(column.to_numpy(), self.setup.bootstrap)
            self._add_interval(measurement, protocol, metric, draws)
        return measurement

    def _add_interval(self, measurement: Measurement, protocol: Protocol, metric: str, draws: np.ndarray) -> None:
        self.draws[protocol.name, metric] = draws
        measurement.interval = interval(measurement.value, draws)
