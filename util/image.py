"""Images and photos: list, decode, convert between uint8, [-1, 1] and PIL, resize, write.

A photo is a file that a user brings; an image is what the networks see or generate. Sizes are (H, W) except PIL's own.
Every program recognizes photos by `is_photo` and decodes them by `to_upright_rgb`: what one accepts, all accept.
"""

import contextlib
import mmap
import os
import re
import struct
import sys
from argparse import ArgumentTypeError
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from torch import Tensor

from util.errors import UserError, first_line, summarize
from util.files import atomic_write, file_names

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
DECODING_ERRORS = (  # what Pillow raises for damaged files
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError,
    MemoryError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
# How files begin that users take for photos, and what to do about them.
HINTS = (
    (rb"....ftyp.{0,40}avi[fs]", "AVIF needs Pillow 11.3 or newer: pip install -U pillow, or convert it to JPEG"),
    (rb"....ftyp.{0,40}(hei|hev|mif1)", "HEIC, as iPhones write it: convert it to JPEG, for example with heif-convert"),
    (rb"\s*<(!doctype|html|head|body|\?xml|!--)", "a web page with a photo's name: download the photo itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS in the photo's place: git lfs pull fetches the photo"),
    (rb"$", "an empty file"),
)
# What EXIF's orientations do: the stored pixels become upright by this. 5 to 8 exchange height and width.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
GRAY_SCALES = {"L;2": 85, "L;4": 17}  # of gray levels of 2 and 4 bits to 8
DECODING = "upright, on white"  # names the rule of `to_upright_rgb`: part of the key of caches that depend on it
NEAR_BLACK = 64  # level of 255: 14 bits or fewer in a file of 16 reach no more
# What a user should know about photos that are decoded all the same.
REMARKS = {
    "orientation": "with an EXIF orientation, turned as viewers show them; keypoints must be those of the turned photo",
    "transparency": "with transparent pixels, composed on white",
}
_printed = mmap.mmap(-1, len(REMARKS))  # a byte each; the loader's workers share them, so that each remark comes once
SKIPPED_SHOWN = 3  # names in the note on files that are no photos
# Pillow's arguments by file ending. JPEG quality is Pillow's default of 75, as in the published results.
IMAGE_FORMATS = {"jpg": {"format": "JPEG"}, "png": {"format": "PNG"}}


class Decoded(NamedTuple):
    """An RGB image as viewers show it, and the keys of REMARKS that apply to its photo."""

    image: Image.Image
    remarks: tuple[str, ...]


def decode_photo(path: Path) -> Image.Image:
    """Decode a whole photo of any mode to RGB as viewers show it (`to_upright_rgb`). A remark is printed once a run.

    Raises UserError for a file that is not a photo, is truncated, or comes out near black because of its depth.
    """
    with _open_photo(path) as file:
        image, remarks = to_upright_rgb(file)
    for number, (remark, text) in enumerate(REMARKS.items()):
        if remark in remarks and not _printed[number]:
            _printed[number] = 1
            print(f"note: {path} is one of the photos {text}", file=sys.stderr)
    return image


def photo_size(path: Path) -> tuple[int, int]:
    """(H, W) of the photo that `decode_photo` decodes, from the head of the file. Raises UserError."""
    with _open_photo(path) as file:
        if file.format == "TIFF":  # Pillow turns these when it loads them
            _load(file)
        return file.size if _orientation(file) >= 5 else (file.height, file.width)


@contextlib.contextmanager
def _open_photo(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow opens it. What goes wrong while it is open becomes a UserError with a hint."""
    try:
        with Image.open(path) as file:
            yield file
    except DECODING_ERRORS as error:
        raise UserError(f"{path}: photo cannot be decoded ({content_hint(path) or first_line(error)})") from error


def content_hint(path: Path) -> str | None:
    """What to do about a file that is not a photo, by its first bytes; None if nothing is known."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return None
    return next((hint for begin, hint in HINTS if re.match(begin, head, re.DOTALL | re.IGNORECASE)), None)


def to_upright_rgb(image: Image.Image) -> Decoded:
    """An image of any mode, just opened or made by a program, as viewers show it, in RGB.

    Its EXIF orientation is applied, transparent pixels are composed on white, and levels of more than 8 bits are scaled
    by the depth of the file, floating-point ones from 0..1. Raises ValueError for deep levels near black, which come
    from 12-bit values in 16-bit files and the like, and the errors of Pillow.
    """
    tile = str(getattr(image, "tile", ""))  # names how the file stores its pixels, until they are loaded
    deep = image.mode[0] in "IF" or ";16" in tile
    _load(image)
    turn = TURNS.get(_orientation(image))
    _scale_transparent_color(image, tile)
    if image.mode[0] in "IF":
        image = _scale_deep_gray(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    is_transparent = image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255
    if is_transparent:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), image.getchannel("A"))
    if deep and max(high for _, high in rgb.getextrema()) <= NEAR_BLACK:
        raise ValueError("its 16 or 32 bits a pixel come out near black: scale its levels to the full range, in 8 bits")
    if turn is not None:
        rgb = rgb.transpose(turn)
        for key in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):  # or it could be turned again
            rgb.info.pop(key, None)
    applies = {"orientation": turn is not None, "transparency": is_transparent}
    return Decoded(rgb, tuple(remark for remark in REMARKS if applies[remark]))


def _load(image: Image.Image) -> None:
    """Load the pixels. Without a name Pillow does not map TIFF files into memory, where it scrambles sideways ones."""
    if image.format == "TIFF":
        image.filename = ""
    image.load()


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 is upright. Pillow itself turns TIFF; a damaged EXIF block is ignored, as viewers do."""
    try:
        orientation = 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation)
    except DECODING_ERRORS:
        return 1
    return orientation if orientation in TURNS else 1


def _scale_transparent_color(image: Image.Image, tile: str) -> None:
    """Bring the one color that a PNG declares transparent to 8 bits. Pillow scales the pixels, but not that color.

    Of 16-bit colors Pillow keeps the upper 8 bits, so all that share these are transparent.
    """
    color = image.info.get("transparency")
    if image.mode == "L" and isinstance(color, int):
        image.info["transparency"] = color * next((scale for bits, scale in GRAY_SCALES.items() if bits in tile), 1)
    elif image.mode == "RGB" and isinstance(color, tuple) and ";16" in tile:
        image.info["transparency"] = tuple(level >> 8 for level in color)


def _scale_deep_gray(image: Image.Image) -> Image.Image:
    """An image of mode I, I;16 or F, whose levels convert() would clip, scaled to 8 bits by the depth of its file.

    It gets an alpha channel if the file declares a level transparent.
    """
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (levels.min() >= 0 and levels.max() <= 1):
            raise ValueError("floating-point levels outside 0..1, so that white is not known: save it in 8 bits")
        white = 1.0
    else:
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        signed = tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 2
        white = 2 ** (bits - signed) - 1
        levels = levels.view(np.uint32) if bits == 32 and not signed else levels
    gray = Image.fromarray((levels / white * 255).round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        gray.putalpha(Image.fromarray(levels != image.info["transparency"]).convert("L"))
    return gray


def size_problem(image: Image.Image, size: tuple[int, int]) -> str | None:
    """Say what is wrong with the size of `image` where `size` (H, W) is expected; None if nothing is."""
    if (image.height, image.width) == size:
        return None
    return f"{image.width} x {image.height} pixels, expected {size[1]} x {size[0]} (width x height)"


def inspect_photo(path: Path, size: tuple[int, int]) -> tuple[str | None, tuple[str, ...]]:
    """Decode a photo: why a data set of photos of `size` (H, W) cannot use it (None if it can), and its REMARKS."""
    try:
        with _open_photo(path) as file:
            image, remarks = to_upright_rgb(file)
    except UserError as error:
        return str(error), ()
    problem = size_problem(image, size)
    return problem and f"{path}: {problem}", remarks


def from_uint8(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1, of any shape."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """-1..1 -> uint8 0..255, of any shape, rounded. The published code truncates, which darkens some levels."""
    return (images.float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()


def from_pil(image: Image.Image) -> Tensor:
    """RGB image of size (W, H) -> uint8 (3,H,W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (3,H,W) -> RGB image of size (W, H)."""
    planes = image.cpu().numpy()
    if planes.transpose(1, 2, 0).flags.c_contiguous:  # channels last: the colors of a pixel are neighbors already
        return Image.fromarray(planes.transpose(1, 2, 0))
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # much faster than interleaving here


def stretch(
    image: Image.Image, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """RGB image -> uint8 (3,H,W) of `size` (H, W), resampled by PIL where the size differs (as published: bilinear)."""
    if (image.height, image.width) != size:
        image = image.resize(size[::-1], resampling)
    return from_pil(image)


def resize_uint8(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B,3,H,W) -> uint8 (B,3,*size), bilinear with half-pixel centers and no anti-aliasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False).round().byte()


def contact_sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Images of one size in rows, without gaps; shorter rows end in white."""
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    return sheet


def save_image(image: Image.Image, path: Path) -> None:
    """Write atomically, in the format that the ending of `path` names (one of IMAGE_FORMATS)."""
    arguments = IMAGE_FORMATS[path.suffix.removeprefix(".")]
    atomic_write(path, lambda file: image.save(file, **arguments))


def image_path(text: str) -> Path:
    """An argparse type: a path with an ending that `save_image` knows."""
    if Path(text).suffix.removeprefix(".") not in IMAGE_FORMATS:
        raise ArgumentTypeError(f"'{text}' does not end in one of .{', .'.join(IMAGE_FORMATS)}")
    return Path(text)


def is_photo(path: str | Path) -> bool:
    """Whether a file is a photo: its name ends like a photo's, or Pillow recognizes its content.

    Hidden files are excluded: they are unfinished or system files.
    """
    name = os.path.basename(path)
    if name.startswith("."):
        return False
    if os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES:
        return True
    with contextlib.suppress(*DECODING_ERRORS), Image.open(path):
        return True
    return False


class PhotoList(NamedTuple):
    """The files of a folder and the folders below it, linked ones too, sorted, with '/' between folders."""

    photos: list[str]
    others: list[str]


def list_photos(folder: Path) -> PhotoList:
    """The photos in `folder` and the other files there."""
    lists = PhotoList([], [])
    for name in sorted(file_names(folder)):
        (lists.photos if is_photo(os.path.join(folder, name)) else lists.others).append(name)
    return lists


def photo_names(folder: Path, expected: Container[str] = ()) -> list[str]:
    """The sorted photos of `list_photos`. A note on stderr counts the other files, except those `expected` there.

    Raises UserError for names that are not UTF-8, which no csv file can hold.
    """
    photos, others = list_photos(folder)
    if broken := not_utf8(photos):
        advice = "names that are not UTF-8; rename these photos, for example with convmv"
        raise UserError(f"{folder}: {advice}:\n{summarize(broken)}")
    if skipped := [name for name in others if name not in expected]:
        print(f"note: {folder}: {describe_skipped(folder, skipped)}", file=sys.stderr)
    return photos


def not_utf8(names: Iterable[str]) -> list[str]:
    """Those of `names` that are not UTF-8, as bytes. Python stands for such bytes with lone surrogates."""
    return [str(os.fsencode(name)) for name in names if re.search("[\udc80-\udcff]", name)]


def describe_skipped(folder: Path, names: list[str]) -> str:
    """How many files are no photos, and which, with a hint where something can be done about them."""
    hints = ((name, content_hint(folder / name)) for name in names[:SKIPPED_SHOWN])
    listed = [f"{name} ({hint})" if hint else name for name, hint in hints]
    more = f" and {len(names) - SKIPPED_SHOWN} more" if len(names) > SKIPPED_SHOWN else ""
    return f"left out because they are not photos ({len(names)}): {', '.join(listed)}{more}"


def read_list(path: Path) -> list[str]:
    """The names in a .lst file, one per line. UserError if it is missing, not UTF-8 or empty, or a name is a path or a
    duplicate."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError as error:
        origin = "PATN (Zhu et al., CVPR 2019) publishes it together with its csv files"
        raise UserError(f"{path}: file not found; {origin}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of names ({error})") from error
    if not names:
        raise UserError(f"{path}: no names in it")
    if bad := [name for name in names if name in (".", "..") or set(name) & set("/\\:")]:
        raise UserError(f"{path}: {bad[0]!r} is no plain file name; it may not contain '/', '\\' or ':'")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {len(names) - len(set(names))} names come twice")
    return names
