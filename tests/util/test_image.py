"""Pixels in and out."""

import numpy as np
import pytest
import torch
from PIL import Image

from util.draw_pose import draw_skeleton
from util.image import contact_sheet, resize_uint8, save_image, to_pil, to_uint8, to_unit


def test_every_level_comes_back():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.min() == -1
    assert unit.max() == 1
    assert torch.equal(to_uint8(unit), levels)


def test_rounding_and_clamping():
    assert to_uint8(torch.tensor([-2.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 3.0])).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("size", [(5, 7), (16, 9)])
def test_resize_is_bilinear_with_half_pixel_centers(size):
    image = np.random.RandomState(0).randint(0, 256, (1, 3, 8, 10)).astype(np.uint8)
    wanted = np.zeros((3, *size))
    for row in range(size[0]):
        for col in range(size[1]):
            y = np.clip((row + 0.5) * 8 / size[0] - 0.5, 0, 7)
            x = np.clip((col + 0.5) * 10 / size[1] - 0.5, 0, 9)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 7), min(x0 + 1, 9)
            top = image[0, :, y0, x0] * (1 - (x - x0)) + image[0, :, y0, x1] * (x - x0)
            bottom = image[0, :, y1, x0] * (1 - (x - x0)) + image[0, :, y1, x1] * (x - x0)
            wanted[:, row, col] = top * (1 - (y - y0)) + bottom * (y - y0)
    ours = resize_uint8(torch.from_numpy(image), size)[0].numpy()
    assert np.abs(ours - wanted).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_to_pil(order):
    images = torch.randint(0, 256, (2, 3, 16, 8), dtype=torch.uint8).contiguous(memory_format=order)
    for image in (images[1], images[0, :, ::2, 1:7], images[0].flip(-1)):
        picture = to_pil(image)
        assert (picture.mode, picture.size) == ("RGB", (image.shape[2], image.shape[1]))
        np.testing.assert_array_equal(np.array(picture), image.permute(1, 2, 0))


def test_jpeg_quality_is_the_papers(tmp_path):
    image = to_pil(torch.randint(0, 256, (3, 16, 8), dtype=torch.uint8))
    save_image(image, tmp_path / "a.jpg")
    image.save(tmp_path / "b.jpg", quality=75)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    save_image(image, tmp_path / "a.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(image))
    assert len(list(tmp_path.iterdir())) == 3


def test_skeleton_draws_present_joints_only():
    keypoints = [[float("nan")] * 2] * 18
    assert draw_skeleton(keypoints, (64, 32)).getbbox() is None
    keypoints[0], keypoints[1] = [10.0, 5.0], [50.0, 25.0]
    left, top, right, bottom = draw_skeleton(keypoints, (64, 32)).getbbox()
    assert 3 <= left <= 5 <= 25 <= right <= 28
    assert 8 <= top <= 10 <= 50 <= bottom <= 53


def test_contact_sheet():
    tiles = [[Image.new("RGB", (4, 6), color) for color in ("red", "blue")], [Image.new("RGB", (4, 6), "lime")]]
    sheet = contact_sheet(tiles)
    assert sheet.size == (8, 12)
    assert [sheet.getpixel(p) for p in ((0, 0), (7, 0), (0, 11), (7, 11))] == [
        (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255),
    ]  # fmt: skip
