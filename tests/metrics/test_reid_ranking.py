"""metrics/reid_ranking.py against goldens of fast-reid's evaluator and closed forms."""

import tracemalloc

import numpy as np
import pytest

from metrics import reid_ranking
from metrics.reid_ranking import FeatureRows, LabeledFeatures, cosine_distances, rank_gallery
from tests.metrics.conftest import REID_GOLDENS


def golden_people(case: str, side: str) -> LabeledFeatures:
    return LabeledFeatures(*(REID_GOLDENS[f"{case}_{side}_{name}"] for name in ("feat", "pid", "cam")))


def people(persons: list[int], cameras: list[int], angles: list[float]) -> LabeledFeatures:
    """Features are points of the unit circle, so that photos of close angles are close."""
    angles = np.array(angles)
    return LabeledFeatures(
        np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), *map(np.array, (persons, cameras))
    )


@pytest.mark.parametrize("case", ["mixed", "two_cameras", "small"])
def test_scores_equal_fast_reid(case):
    """Junk in front, absent people, only junk, one photo, many photos; a gallery of 12. Its scores are float32."""
    queries, gallery = golden_people(case, "q"), golden_people(case, "g")
    distances = cosine_distances(queries.features, gallery.features)
    np.testing.assert_allclose(distances, REID_GOLDENS[f"{case}_distance"], rtol=0, atol=1e-6)
    scores = rank_gallery(queries, gallery, [[]] * len(queries.persons)).scores
    np.testing.assert_allclose(scores["mAP"], 100 * REID_GOLDENS[f"{case}_ap"], rtol=1e-12)
    np.testing.assert_allclose(scores["mINP"], 100 * REID_GOLDENS[f"{case}_inp"], rtol=1e-12)
    np.testing.assert_allclose(scores.mean(), REID_GOLDENS[f"{case}_results"][:5], rtol=0, atol=1e-4)
    cmc = [REID_GOLDENS[f"{case}_cmc"][k - 1] for k in (1, 5, 10)]
    np.testing.assert_allclose(scores.mean()[:3], 100 * np.array(cmc), rtol=0, atol=1e-4)


def test_junk_is_dropped_and_queries_without_right_photos_are_skipped():
    queries = people([7, 7, 8, 9], [0, 1, 0, 0], [0, 0, 0, 0])
    #                 junk or first, a stranger, second, junk of 9 only
    gallery = people([7, 1, 7, 9], [0, 0, 1, 0], [0.1, 0.2, 0.3, 0.4])
    ranking = rank_gallery(queries, gallery, [[]] * 4)
    assert list(ranking.scores.index) == [0, 1]  # 8 is absent; of 9 there is only junk
    # query 0 drops gallery 0: stranger, right; query 1 drops gallery 2: right comes first
    assert ranking.scores.loc[0].to_list() == [0, 100, 100, 50, 50]
    assert ranking.scores.loc[1].to_list() == [100, 100, 100, 100, 100]
    assert ranking.junk == 3


def test_left_out_photos_are_dropped_for_their_query_only():
    queries, gallery = people([1, 1], [0, 0], [0, 0]), people([1, 2, 1], [1, 1, 1], [0.1, 0.2, 0.3])
    ranking = rank_gallery(queries, gallery, [[0], []])
    assert ranking.scores["mAP"].to_list() == [50, pytest.approx(100 * (1 + 2 / 3) / 2)]
    assert ranking.junk == 0


def test_small_gallery_counts_what_is_not_found_as_a_miss():
    """fast-reid stops with an IndexError where the gallery has fewer than 10 photos."""
    ranking = rank_gallery(people([1], [0], [0]), people([2, 2, 1], [1, 1, 1], [0.1, 0.2, 0.3]), [[]])
    assert ranking.scores.loc[0].to_list() == [0, 100, 100, pytest.approx(100 / 3), pytest.approx(100 / 3)]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_equal_distances_keep_the_order_of_the_gallery(block, monkeypatch):
    """Identical photos of 2048 features, in any blocks: the right one is at the place that it has in the gallery."""
    monkeypatch.setattr(reid_ranking, "BLOCK", block)
    random = np.random.RandomState(0)
    feature, n = random.randn(2048).astype(np.float32), 24
    gallery = LabeledFeatures(np.tile(feature, (n, 1)), np.arange(n), np.ones(n, int))
    noisy = feature + random.randn(n, 2048).astype(np.float32)
    scores = rank_gallery(LabeledFeatures(noisy, np.arange(n), np.zeros(n, int)), gallery, [[]] * n).scores
    np.testing.assert_allclose(scores["mAP"], 100 / np.arange(1, n + 1))


def test_blocks_do_not_change_scores(monkeypatch):
    queries, gallery = golden_people("mixed", "q"), golden_people("mixed", "g")
    at_once = rank_gallery(queries, gallery, [[]] * 14)
    monkeypatch.setattr(reid_ranking, "BLOCK", 5)
    in_blocks = rank_gallery(queries, gallery, [[]] * 14)
    assert in_blocks.scores.equals(at_once.scores)
    assert in_blocks.junk == at_once.junk > 0


def test_features_of_zeros_have_distance_one():
    """As in fast-reid, which divides by at least 1e-12."""
    assert cosine_distances(np.zeros((1, 4), np.float32), np.ones((2, 4), np.float32)).tolist() == [[1, 1]]


def test_features_in_a_file_are_ranked_in_bounded_memory(tmp_path, monkeypatch):
    """They have the scores of arrays, whatever their order in the file, and take less than a tenth of their size."""
    monkeypatch.setattr(reid_ranking, "BLOCK", 32)
    random = np.random.RandomState(0)
    values = random.randn(6000, 2048).astype(np.float32)
    values.tofile(tmp_path / "features")
    rows, persons, cameras = random.permutation(6000), random.randint(0, 20, 6000), random.randint(0, 3, 6000)
    parts = slice(70), slice(70, None)
    arrays = [LabeledFeatures(values[rows[part]], persons[part], cameras[part]) for part in parts]
    files = [
        LabeledFeatures(FeatureRows(tmp_path / "features", rows[part], 2048), *people[1:])
        for part, people in zip(parts, arrays)
    ]
    expected = rank_gallery(*arrays, [[]] * 70)
    tracemalloc.start()
    ranking = rank_gallery(*files, [[]] * 70)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ranking.scores.equals(expected.scores)
    assert ranking.junk == expected.junk > 0
    assert peak < values.nbytes / 10
