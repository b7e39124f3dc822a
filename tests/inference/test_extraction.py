"""Parts of inference/extraction.py; tests/scripts/test_extract_poses.py runs the whole."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from inference import extraction
from inference.extraction import ExtractedRow, RowCache, round_down, skeleton_sheet
from util.errors import UserError


def test_round_down_keeps_hundredths():
    assert round_down(np.float32([63.9999, 1.23456])).tolist() == [63.99, 1.23]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_row_cache_add_on_a_full_disk_names_the_file(tmp_path):
    cache = RowCache(tmp_path / "a.rows", {}, ["a.jpg"], overwrite=False)
    cache.path.unlink()
    cache.path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"a\.rows: could not be written \(No space left on device\)"):
        cache.add("a.jpg", ExtractedRow(0, np.full((18, 2), np.nan)))


def test_extract_rows_takes_all_that_the_processes_yield(tmp_path, monkeypatch):
    """The progress bar is complete only when its generator ends."""
    row = ExtractedRow(0, np.full((18, 2), np.nan))
    ended = []

    def compute(find, names, *_) -> Iterator[ExtractedRow]:
        yield from map(find, names)
        ended.append(True)

    monkeypatch.setattr(extraction, "map_in_processes", compute)
    cache = RowCache(tmp_path / "a.rows", {}, ["a.jpg", "b.jpg"], overwrite=False)
    extraction.extract_rows(lambda _: row, ["a.jpg", "b.jpg"], 1, cache)
    assert ended
    assert list(cache.rows) == ["a.jpg", "b.jpg"]


def test_skeleton_sheet_of_many_photos_shows_some(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SHEET", (1, 3))
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        Image.new("RGB", (32, 64), (0, 8 * number, 0)).save(tmp_path / name)
    rows = {name: ExtractedRow(0, np.full((18, 2), np.nan)) for name in names}
    sheet = np.asarray(skeleton_sheet(tmp_path, rows))
    middle = sheet[128, 88 :: extraction.CELL[1]]
    assert middle[:, 1].tolist() == [0, 16, 40]  # the greens of the first, the third and the last
