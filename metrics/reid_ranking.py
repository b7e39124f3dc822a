"""Re-identification scores as fast-reid computes them: each query ranks the gallery by cosine distance.

Photos of the query's person by the query's camera ("junk") are dropped from its ranking. A query without a match
in the remaining gallery is left out of all means. Unlike fast-reid, equal distances keep the gallery's order, and
galleries may be small.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from metrics.evaluation import Metric

PROTOCOL = "re-id"  # in tables and records
SCORES = {name: Metric(higher_is_better=True) for name in ("rank1", "rank5", "rank10", "mAP", "mINP")}
BLOCK = 128  # rows; bounds the memory


class FeatureRows:
    """Features (N,D) float32 in a file; a slice reads only its own rows, so that the memory does not grow with N."""

    def __init__(self, file: Path, rows: np.ndarray, width: int) -> None:
        """`rows` (N,): which of the rows of `width` float32 numbers in `file` each feature is."""
        self.file, self.rows, self.width = file, rows, width

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        # mapped anew each time, because all pages that were read through one mapping would count as memory
        return np.memmap(self.file, np.float32, "r").reshape(-1, self.width)[self.rows[part]]


class LabeledFeatures(NamedTuple):
    """One side of the comparison: features (N,D) float32, and each image's person and camera, (N,) integers."""

    features: np.ndarray | FeatureRows
    persons: np.ndarray
    cameras: np.ndarray


class Ranking(NamedTuple):
    """`scores`: a row for each valid query, by its index, and a column for each of SCORES, in percent.

    `junk`: how many photos were dropped for having the query's person and camera, summed over all queries.
    """

    scores: pd.DataFrame
    junk: int


def rank_gallery(queries: LabeledFeatures, gallery: LabeledFeatures, left_out: Sequence[Sequence[int]]) -> Ranking:
    """Scores of every query. `left_out`: for each query, gallery photos that are dropped from its ranking, too."""
    rows, junk = {}, 0
    for start in range(0, len(queries.features), BLOCK):
        block = cosine_distances(queries.features[start : start + BLOCK], gallery.features)
        for query, distances in enumerate(block, start):
            matches = gallery.persons == queries.persons[query]
            dropped = matches & (gallery.cameras == queries.cameras[query])
            junk += int(dropped.sum())
            dropped[list(left_out[query])] = True
            order = np.argsort(distances, kind="stable")
            positions = np.flatnonzero(matches[order[~dropped[order]]]) + 1  # ranks of the matches, from 1
            if len(positions):
                hits = np.arange(1, len(positions) + 1)
                ranks = [100.0 * (positions[0] <= k) for k in (1, 5, 10)]
                rows[query] = (*ranks, 100 * (hits / positions).mean(), 100 * hits[-1] / positions[-1])
    return Ranking(pd.DataFrame.from_dict(rows, orient="index", columns=list(SCORES), dtype=float), junk)


def cosine_distances(a: np.ndarray, b: np.ndarray | FeatureRows) -> np.ndarray:
    """Features (N,D) and (M,D) -> 1 - cosine, (N,M) float32, on the CPU.

    Sums in float64 make photos with equal features equally distant, wherever they stand.
    """
    distances = np.empty((len(a), len(b)), np.float32)
    a = _normalize(a)
    for start in range(0, len(b), BLOCK):  # a whole copy of `b` in float64 would be too large
        distances[:, start : start + BLOCK] = 1 - a @ _normalize(b[start : start + BLOCK]).T
    return distances


def _normalize(features: np.ndarray) -> np.ndarray:
    """Divide each row by its length, in float64; lengths below 1e-12 count as that."""
    features = features.astype(np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
