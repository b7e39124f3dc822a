"""How uncertain a number is, by the bootstrap (Efron 1979): measured again on pairs drawn with replacement.

The draws follow from the number of pairs alone, so two evaluations of the same pairs see the same draws: their
difference is a paired comparison. The real photos of FID stay fixed.
"""

import numpy as np
import torch
from torch import Tensor

from metrics.fid import Gaussian, frechet_distance

LEVEL = 95  # percent
Interval = tuple[float, float]


def draw_weights(n: int, draws: int) -> np.ndarray:
    """How often each of `n` pairs is in each draw: (draws,n), rows sum to n."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def mean_draws(values: np.ndarray, draws: int) -> np.ndarray:
    """The mean of `values` (n,) in each draw."""
    return draw_weights(len(values), draws) @ values / len(values)


def fid_draws(features: Tensor, real: Gaussian, draws: int) -> np.ndarray:
    """The FID of `features` (n,D) in each draw: about 12 s on one core for 3,000 images and 2,048 features."""
    features, n, distances = features.double(), len(features), []
    for weights in torch.from_numpy(draw_weights(n, draws)):
        mean = weights @ features / n
        centered = features - mean
        covariance = centered.T @ (centered * weights[:, None]) / (n - 1)
        distances.append(frechet_distance(Gaussian(n, mean.numpy(), covariance.numpy()), real))
    return np.array(distances)


def interval(value: float, draws: np.ndarray) -> Interval:
    """The interval in which LEVEL percent of the draws scatter around `value`; all draws must be finite.

    Draws repeat pairs, which raises every FID. Therefore their scatter around their own mean is taken.
    """
    low, high = np.percentile(draws - draws.mean(), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return value + float(low), value + float(high)
