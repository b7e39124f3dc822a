"""metrics/page.py: the web page of an evaluation."""

import re

import numpy as np
import pytest

from data.pairs import read_pairs, result_name
from metrics import metrics
from metrics.page import BINS, histogram
from tests.metrics.conftest import read_pixels


def test_page_shows_histograms_and_ranked_pairs(call, flags, market, results):
    pairs = f"--pairs={market}/market-pairs-test.csv"
    done = call(metrics, *flags, "--metrics=psnr,l1", pairs, f"--html={market}/page")
    assert done.returncode == 0, done.stderr
    page = (market / "page/index.html").read_text()
    shown = re.findall(r'src="([^"]+)"', page)
    assert len(shown) == 2 * 9  # two metrics; worst, median and best; three pairs each
    assert {str(path.relative_to(market / "page")) for path in (market / "page/images").iterdir()} == set(shown)
    assert page.count("<svg") == 2
    assert page.count("<rect") == 2 * 40
    # results get darker along the csv: pair 7 is the worst, pair 0 the best, by both metrics
    assert re.findall(r"images/(\d+)\.png", page)[::9] == ["000007", "000007"]
    assert re.findall(r"images/(\d+)\.png", page)[6::9] == ["000000", "000000"]
    sheet = read_pixels(market / "page/images/000007.png")
    pair = read_pairs(market / "market-pairs-test.csv")[7]
    assert sheet.shape == (128, 3 * 64, 3)
    for part, path in enumerate(
        (market / "test" / pair.source, market / "test" / pair.target, results / result_name(*pair, "png"))
    ):
        assert (sheet[:, part * 64 : (part + 1) * 64] == read_pixels(path)).all()


def test_page_shows_infinite_values(call, market):
    """A copied source may equal its target."""
    done = call(
        metrics, f"--gt_path={market}/test", "--market", "--metrics=psnr", "--baseline=copy_source", "--nThreads=0",
        f"--pairs={market}/market-pairs-test.csv", f"--html={market}/page", f"--out={market}/m.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "inf: " in (market / "page/index.html").read_text()


@pytest.mark.parametrize("values", [[0.1, np.nextafter(0.1, 1)], [7.0, 7.0], [0.0], [0.0, 1.0, 1.0]])
def test_histogram_contains_every_value(values):
    """Also where values differ by rounding alone."""
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', histogram(np.array(values)).render())]
    assert len(heights) == BINS
    shares = np.array(heights) / max(heights)
    assert shares.sum() == pytest.approx(len(values) / np.unique(np.round(values, 9), return_counts=True)[1].max())
