"""Parts of inference/photo_transfer.py; tests/scripts/test_transfer.py runs the whole."""

import numpy as np
import torch
from PIL import Image

from inference.photo_transfer import TransferResult, comparison_sheet

SIZE = (128, 64)


def test_comparison_sheet_of_a_long_sequence_shows_some():
    image, poses = Image.new("RGB", SIZE[::-1]), np.zeros((30, 18, 2))
    levels = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 3, *SIZE)
    sheet = comparison_sheet(TransferResult([], image, poses[0], poses, levels), 12)
    assert sheet.size == (4 * 64, 12 * 128)
    assert [sheet.getpixel((3 * 64, row * 128))[0] for row in (0, 11)] == [0, 29]
