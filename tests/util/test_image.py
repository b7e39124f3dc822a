"""Conversion, resizing, writing and listing of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from util.errors import UserError
from util.image import (
    contact_sheet,
    decode_photo,
    photo_names,
    resize_uint8,
    save_image,
    size_problem,
    stretch,
    to_pil,
    to_uint8,
    to_unit,
)


def test_to_uint8_inverts_to_unit():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.min() == -1
    assert unit.max() == 1
    assert torch.equal(to_uint8(unit), levels)


def test_to_uint8_rounds_and_clamps():
    assert to_uint8(torch.tensor([-2.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 3.0])).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("size", [(5, 7), (16, 9)])
def test_resize_uint8_is_bilinear_with_half_pixel_centers(size):
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
def test_to_pil_keeps_pixels_in_any_memory_order(order):
    images = torch.randint(0, 256, (2, 3, 16, 8), dtype=torch.uint8).contiguous(memory_format=order)
    for image in (images[1], images[0, :, ::2, 1:7], images[0].flip(-1)):
        converted = to_pil(image)
        assert (converted.mode, converted.size) == ("RGB", (image.shape[2], image.shape[1]))
        np.testing.assert_array_equal(np.array(converted), image.permute(1, 2, 0))


def test_save_image_writes_jpeg_quality_75_and_lossless_png(tmp_path):
    image = to_pil(torch.randint(0, 256, (3, 16, 8), dtype=torch.uint8))
    save_image(image, tmp_path / "a.jpg")
    image.save(tmp_path / "b.jpg", quality=75)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    save_image(image, tmp_path / "a.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), np.array(image))
    assert len(list(tmp_path.iterdir())) == 3


def test_contact_sheet_fills_short_rows_with_white():
    tiles = [[Image.new("RGB", (4, 6), color) for color in ("red", "blue")], [Image.new("RGB", (4, 6), "lime")]]
    sheet = contact_sheet(tiles)
    assert sheet.size == (8, 12)
    assert [sheet.getpixel(p) for p in ((0, 0), (7, 0), (0, 11), (7, 11))] == [
        (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255),
    ]  # fmt: skip


def test_stretch_resizes_as_pil_and_swaps_axes():
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (6, 4, 3), np.uint8))
    assert torch.equal(stretch(image, (6, 4)), torch.from_numpy(np.array(image)).permute(2, 0, 1))
    resized = np.array(image.resize((8, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(stretch(image, (12, 8)), resized.transpose(2, 0, 1))


def test_size_problem_names_both_sizes():
    image = Image.new("RGB", (64, 128))
    assert size_problem(image, (128, 64)) is None
    assert size_problem(image, (256, 176)) == "64 x 128 pixels, expected 176 x 256 (width x height)"


def test_photo_names_are_sorted_and_leave_out_other_files(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/.d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert photo_names(tmp_path) == ["a/c.png", "b.JPG"]


@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16", "RGBA", "LA"])
def test_decode_photo_converts_every_mode_to_rgb(mode, tmp_path):
    """The content counts, not the suffix of the name."""
    path = tmp_path / "a.jpg"
    if mode == "I;16":
        Image.fromarray(np.full((128, 64), 200 * 257, np.uint16)).save(path, format="PNG")
    else:
        Image.new("L", (64, 128), 200).convert(mode).save(path, format="PNG")
    photo = decode_photo(path)
    assert (photo.mode, photo.size) == ("RGB", (64, 128))
    if mode != "1":  # which dithers
        assert set(photo.getdata()) == {(200, 200, 200)}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(20), b"text, of some length, no photo"]
)
def test_decode_photo_rejects_what_is_no_photo(content, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.jpg: photo cannot be decoded") as caught:
        decode_photo(path)
    assert "\n" not in str(caught.value)


def test_decode_photo_rejects_a_size_that_is_too_large(tmp_path, monkeypatch):
    """A few bytes may claim an image of any size."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (64, 128)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="photo cannot be decoded"):
        decode_photo(tmp_path / "a.jpg")
