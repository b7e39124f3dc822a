"""Images and photos: decode, convert between uint8, [-1, 1] and PIL, resize, write, list.

A photo is a file that a user brings; an image is what the networks see or generate. Sizes are (H, W) except PIL's own.
"""

from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from util.errors import UserError
from util.files import atomic_write, file_names

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png"}
# Pillow's arguments by file ending. JPEG quality is Pillow's default of 75, as in the published results.
IMAGE_FORMATS = {"jpg": {"format": "JPEG"}, "png": {"format": "PNG"}}


def decode_photo(path: Path) -> Image.Image:
    """Decode a whole photo of any mode to RGB. Raises UserError for a file that is not a photo, or is truncated."""
    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip instead of scale
                levels = (np.asarray(file, float) / 257).round().clip(0, 255)
                return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: photo cannot be decoded ({error})") from error


def size_problem(image: Image.Image, size: tuple[int, int]) -> str | None:
    """Say what is wrong with the size of `image` where `size` (H, W) is expected; None if nothing is."""
    if (image.height, image.width) == size:
        return None
    return f"{image.width} x {image.height} pixels, expected {size[1]} x {size[0]} (width x height)"


def photo_problem(path: Path, size: tuple[int, int]) -> str | None:
    """Decode a photo and say why a data set of photos of `size` (H, W) cannot use it; None if it can."""
    try:
        problem = size_problem(decode_photo(path), size)
    except UserError as error:
        return str(error)
    return problem and f"{path}: {problem}"


def to_unit(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1, of any shape."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """-1..1 -> uint8 0..255, of any shape, rounded. The published code truncates, which darkens some levels."""
    return (images.float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (3,H,W) -> RGB image of size (W, H)."""
    planes = image.cpu().numpy()
    if planes.transpose(1, 2, 0).flags.c_contiguous:  # channels last: the colors of a pixel are neighbors already
        return Image.fromarray(planes.transpose(1, 2, 0))
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # much faster than interleaving here


def stretch(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """RGB image -> uint8 (3,H,W) of `size` (H, W), by PIL's bilinear filter where the size differs, as published."""
    if (image.height, image.width) != size:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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


def is_photo(path: Path) -> bool:
    """Whether a file name ends like a photo's. Hidden files are excluded: they are unfinished or system files."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def photo_names(folder: Path) -> list[str]:
    """Sorted photos in `folder` and the folders below it, relative to it, with '/' between folders."""
    return sorted(name for name in file_names(folder) if is_photo(Path(name)))


def read_list(path: Path) -> list[str]:
    """Read a .lst file: a photo name per line. Raises UserError for a name that is a path or a duplicate."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        origin = "PATN (Zhu et al., CVPR 2019) publishes it together with its csv files"
        raise UserError(f"{path}: file not found; {origin}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of names ({error})") from error
    if not names:
        raise UserError(f"{path}: no names in it")
    if bad := [name for name in names if name in (".", "..") or set(name) & set("/\\:")]:
        raise UserError(f"{path}: {bad[0]!r} is no plain file name")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {len(names) - len(set(names))} names come twice")
    return names
