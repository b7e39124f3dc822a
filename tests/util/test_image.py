"""Listing, decoding, conversion, resizing and writing of images."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import smooth
from util import image as image_module
from util.errors import UserError
from util.image import (
    TURNS,
    contact_sheet,
    decode_photo,
    from_uint8,
    inspect_photo,
    is_photo,
    photo_names,
    photo_size,
    resize_uint8,
    save_image,
    size_problem,
    stretch,
    to_pil,
    to_uint8,
    to_upright_rgb,
)

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def test_to_uint8_inverts_to_unit():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = from_uint8(levels)
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


def test_photo_names_are_sorted_and_other_files_are_counted(tmp_path, capsys):
    for name in ("b.JPG", "a/c.webp", "a/.d.png", "notes.txt", "index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no photo")
    (tmp_path / "e.heic").write_bytes(HEIC)
    assert photo_names(tmp_path, expected=["index.html"]) == ["a/c.webp", "b.JPG"]
    note = f"note: {tmp_path}: left out because they are not photos (3): a/.d.png, e.heic (HEIC, as iPhones write it: "
    assert capsys.readouterr().err.startswith(note)


def test_is_photo_goes_by_suffix_or_content(tmp_path):
    """A file with a photo's suffix need not be opened; decoding it says what is wrong with it."""
    smooth(4, 4).save(tmp_path / "0001", format="JPEG")
    smooth(4, 4).save(tmp_path / "a.jpg_original", format="PNG")
    smooth(4, 4).save(tmp_path / ".a.jpg")
    (tmp_path / "b.csv").write_text("from,to")
    (tmp_path / "c.tif").touch()
    assert [name for name in sorted(os.listdir(tmp_path)) if is_photo(tmp_path / name)] == [
        "0001",
        "a.jpg_original",
        "c.tif",
    ]


def test_photo_names_that_are_not_utf8_are_refused_by_name(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    with pytest.raises(UserError, match=r"names that are not UTF-8; rename.*\n  b'caf\\xe9.jpg'"):
        photo_names(tmp_path)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "16.png", "16.tif"])
def test_decode_photo_turns_every_format_upright(suffix, orientation, tmp_path):
    """The stored pixels are turned back by the inverse of what the orientation asks for."""
    path, upright = tmp_path / f"a.{suffix}", smooth(48, 36)
    if suffix.startswith("16"):
        upright = Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, TURNS[orientation])
    exif = Image.Exif()
    exif[0x112] = orientation
    quality = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    upright.transpose(inverse).save(path, exif=exif, **quality)
    photo = decode_photo(path)
    wanted = np.asarray(upright, float) / (257 if suffix.startswith("16") else 1)
    wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, 2)
    assert np.abs(np.asarray(photo, float) - wanted).mean() < (3 if suffix == "jpg" else 1e-9)
    assert photo_size(path) == (photo.height, photo.width) == (36, 48)
    assert to_upright_rgb(photo).image.tobytes() == photo.tobytes()  # it is not turned again


def test_decode_photo_ignores_a_damaged_exif_block(tmp_path):
    smooth(8, 4).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00damaged")
    assert decode_photo(tmp_path / "a.jpg").size == (8, 4)
    assert photo_size(tmp_path / "a.jpg") == (4, 8)


def test_decode_photo_prints_each_remark_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_module, "_printed", bytearray(2))
    exif = Image.Exif()
    exif[0x112] = 3
    for name in ("a.png", "b.png"):
        Image.new("RGBA", (2, 2)).save(tmp_path / name, exif=exif)
        decode_photo(tmp_path / name)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"note: {tmp_path / 'a.png'} is one of the photos with an EXIF orientation")
    assert second == f"note: {tmp_path / 'a.png'} is one of the photos with transparent pixels, composed on white"
    assert inspect_photo(tmp_path / "b.png", (2, 2)) == (None, ("orientation", "transparency"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_decode_photo_composes_transparent_pixels_on_white(mode, tmp_path):
    """Left: opaque, middle: half transparent, right: transparent, hiding black."""
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(100, 100, 100, 255), (100, 100, 100, 128), (0, 0, 0, 0)]):
        image.putpixel((x, 0), pixel)
    if mode == "P":
        image.quantize(3).save(tmp_path / "a.png")
    else:
        image.convert(mode).save(tmp_path / "a.tif" if mode == "PA" else tmp_path / "a.png")
    (path,) = tmp_path.iterdir()
    assert [pixel[0] for pixel in decode_photo(path).getdata()] == [100, 177, 255]


def write_png(path: Path, bits: int, row: bytes, width: int, is_gray: bool, transparent: bytes = b"") -> None:
    """A gray or RGB PNG of two equal rows, of a depth that Pillow does not write; `transparent`: its chunk tRNS."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 2, bits, 0 if is_gray else 2, 0, 0, 0))
    content += chunk(b"tRNS", transparent) if transparent else b""
    content += chunk(b"IDAT", zlib.compress((b"\0" + row) * 2)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def deep_png(path: Path, level: int, channels: int) -> None:
    """A PNG of 16 bits a channel: gray (1 channel) or RGB (3)."""
    write_png(path, 16, np.full(4 * channels, level, ">u2").tobytes(), 4, channels == 1)


@pytest.mark.parametrize(
    ("bits", "row", "is_gray", "transparent", "other"),
    [
        (1, bytes([0b01000000]), True, b"\0\0", (255, 255, 255)),
        (2, bytes([0b01100000]), True, b"\0\1", (170, 170, 170)),
        (4, bytes([0x5C]), True, b"\0\5", (204, 204, 204)),
        (8, bytes([100, 200]), True, b"\0\x64", (200, 200, 200)),
        (16, struct.pack(">2H", 30000, 30001), True, struct.pack(">H", 30000), (117, 117, 117)),
        (8, bytes([1, 2, 3, 200, 100, 50]), False, b"\0\1\0\2\0\3", (200, 100, 50)),
        (16, struct.pack(">6H", 0x3001, 9, 8, 0x130, 0x900, 0x800), False, struct.pack(">3H", 0x3001, 9, 8), (1, 9, 8)),
    ],
)  # fmt: skip
def test_decode_photo_knows_the_transparent_color_of_a_png(bits, row, is_gray, transparent, other, tmp_path):
    """The left of two pixels has the color that the file declares transparent: it is white."""
    write_png(tmp_path / "a.png", bits, row, 2, is_gray, transparent)
    photo = decode_photo(tmp_path / "a.png")
    assert [photo.getpixel((x, 1)) for x in (0, 1)] == [(255, 255, 255), other]
    assert inspect_photo(tmp_path / "a.png", (2, 2)) == (None, ("transparency",))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [2**12 - 1, 2**14 - 1])
def test_decode_photo_of_fewer_bits_in_16_is_a_clear_error(channels, white, tmp_path):
    deep_png(tmp_path / "a.png", white, channels)
    with pytest.raises(UserError, match="its 16 or 32 bits a pixel come out near black"):
        decode_photo(tmp_path / "a.png")
    deep_png(tmp_path / "a.png", 0xFFFF, channels)
    assert decode_photo(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.int32([0, 2**30, 2**31 - 1]), [0, 128, 255]),
        (np.uint16([0, 128 * 257, 65535]), [0, 128, 255]),
    ],
)
def test_decode_photo_scales_by_the_depth_of_the_file(levels, wanted, tmp_path):
    Image.fromarray(levels[None]).save(tmp_path / "a.tif")
    assert [pixel[0] for pixel in decode_photo(tmp_path / "a.tif").getdata()] == wanted


@pytest.mark.parametrize("levels", [np.float32([0, 200]), np.float32([np.nan, 1]), np.int32([0, 4095])])
def test_decode_photo_of_an_unknown_white_is_a_clear_error(levels, tmp_path):
    Image.fromarray(levels[None]).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="a.tif: photo cannot be decoded .*8 bits"):
        decode_photo(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (HEIC, "HEIC, as iPhones write it: convert it to JPEG"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF needs Pillow 11.3 or newer"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "a web page with a photo's name"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"", "an empty file"),
    ],
)
def test_decode_photo_says_what_to_do_about_what_is_no_photo(content, hint, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"a.jpg: photo cannot be decoded \({hint}"):
        decode_photo(tmp_path / "a.jpg")


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
