"""Parts of inference/extraction.py; tests/scripts/test_extract_poses.py runs the whole."""

import numpy as np
from PIL import Image

from inference import extraction
from inference.extraction import ExtractedRow, round_down, skeleton_sheet


def test_round_down_keeps_hundredths():
    assert round_down(np.float32([63.9999, 1.23456])).tolist() == [63.99, 1.23]


def test_skeleton_sheet_of_many_photos_shows_some(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SHEET", (1, 3))
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        Image.new("RGB", (32, 64), (0, 8 * number, 0)).save(tmp_path / name)
    rows = {name: ExtractedRow(0, np.full((18, 2), np.nan)) for name in names}
    sheet = np.asarray(skeleton_sheet(tmp_path, rows))
    middle = sheet[128, 88 :: extraction.CELL[1]]
    assert middle[:, 1].tolist() == [0, 16, 40]  # the greens of the first, the third and the last
