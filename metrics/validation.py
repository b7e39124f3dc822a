"""Scores of a generator on held-out pairs, at network resolution: L1, PSNR, SSIM; on request LPIPS or FID."""

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from metrics.fid import FeatureStatistics, frechet_distance
from metrics.inception import Inception
from metrics.lpips import LPIPS
from metrics.pixel import Comparison
from metrics.protocols import PROTOCOLS
from util.image import to_uint8

VAL_METRICS = {"ssim": True, "psnr": True, "l1": False, "lpips": False, "fid": False}  # --val_metric -> more is better
PROTOCOL = PROTOCOLS["standard"]


class Validation:
    """Scores a generator on the held-out pairs: L1, PSNR, SSIM and --val_metric."""

    def __init__(self, opt: Namespace, device: torch.device) -> None:
        """Load the network of --val_metric. UserError where its weights are unavailable."""
        self.metric, self.device = opt.val_metric, device
        self.network: nn.Module | None = None
        if self.metric == "lpips":
            self.network = LPIPS(opt.alexnet_weights).to(device)
        elif self.metric == "fid":
            self.network = Inception("torchvision", opt.inception_weights).to(device)

    def is_better(self, scores: dict[str, float], best: float | None) -> bool:
        """Whether --val_metric beats `best`, its best value so far."""
        value = scores[self.metric]
        return best is None or (value > best if VAL_METRICS[self.metric] else value < best)

    def scores(self, model: Any, batches: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Averages over all pairs in `batches`, of 8-bit images; FID compares all generated images with all targets.

        model: a BaseModel, of which `set_input` and `test` are called.
        l1, psnr, ssim: those of the evaluation's `standard` protocol, ssim its `ssim_256`.
        """
        rows, distances, fake_statistics, real_statistics = [], [], FeatureStatistics(), FeatureStatistics()
        for batch in batches:
            model.set_input(batch)
            fakes, reals = to_uint8(model.test()), batch["target_image"]
            pairs = (Comparison(fake, real, 0, PROTOCOL) for fake, real in zip(fakes.cpu(), reals))
            rows += [(pair.l1(), pair.psnr(), pair.ssim_256()) for pair in pairs]
            with torch.inference_mode():
                if self.metric == "lpips":
                    distances += self.network(fakes, reals.to(self.device)).tolist()
                elif self.metric == "fid":
                    fake_statistics.update(self.network(fakes))
                    real_statistics.update(self.network(reals.to(self.device)))
        scores = dict(zip(("l1", "psnr", "ssim"), np.mean(rows, axis=0).tolist()))
        if self.metric == "lpips":
            scores["lpips"] = float(np.mean(distances))
        elif self.metric == "fid":
            scores["fid"] = frechet_distance(fake_statistics.compute(), real_statistics.compute())
        return scores
