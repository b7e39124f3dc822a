"""Images and photos: uint8 and [-1, 1], resizing, decoding, writing, listing."""

import os
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from util.errors import UserError
from util.files import atomic_write

IMAGE_FORMATS = {
    "jpg": {"format": "JPEG"},
    "png": {"format": "PNG"},
}  # Pillow's JPEG quality: its default, 75


def to_unit(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """-1..1 -> uint8 0..255, rounded (the published code truncates, which darkens a quarter of the levels by one)."""
    return (images.float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()


def stretch(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Picture -> uint8 (3,H,W) of `size` (H, W), by PIL's bilinear filter where the size differs, as published."""
    if (image.height, image.width) != size:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def resize_uint8(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B,3,H,W) -> uint8 at `size` (H, W), bilinear with half-pixel centers and no anti-aliasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False).round().byte()


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (3,H,W) -> picture."""
    planes = image.cpu().numpy()
    if planes.transpose(1, 2, 0).flags.c_contiguous:  # channels last: pixel by pixel already
        return Image.fromarray(planes.transpose(1, 2, 0))
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])  # much faster than interleaving here


def save_image(image: Image.Image, path: Path) -> None:
    """Write by the ending of `path` (one of IMAGE_FORMATS), whole or not at all."""
    how = IMAGE_FORMATS[path.suffix.removeprefix(".")]
    atomic_write(path, lambda file: image.save(file, **how))


def image_path(text: str) -> Path:
    """An argparse type: a path that `save_image` knows by its ending."""
    if Path(text).suffix.removeprefix(".") not in IMAGE_FORMATS:
        raise ArgumentTypeError(f"'{text}' does not end in one of .{', .'.join(IMAGE_FORMATS)}")
    return Path(text)


def contact_sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """Pictures of one size in rows, without gaps."""
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * width, y * height))
    return sheet


PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png"}


def is_photo(path: Path) -> bool:
    """By its ending; hidden files (unfinished ones, and those of other systems) are none."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def read_list(path: Path) -> list[str]:
    """The photo names of a .lst file, one a line. Raises UserError for a name that is a path, or comes twice."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: file not found; PATN (Zhu et al., CVPR 2019) publishes it together with its csv files"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of names ({error})") from error
    bad = [name for name in names if name in (".", "..") or set(name) & set("/\\:")]
    if bad or not names:
        raise UserError(f"{path}: {f'{bad[0]!r} is no plain file name' if bad else 'no names in it'}")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {len(names) - len(set(names))} names come twice")
    return names


def decode_photo(path: Path) -> Image.Image:
    """The whole photo as RGB, whatever its mode. Raises UserError where it is not one, or not all of one."""
    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
                return Image.fromarray((np.asarray(file, float) / 257).round().clip(0, 255).astype(np.uint8)).convert(
                    "RGB"
                )
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: photo cannot be decoded ({error})") from error


def size_problem(image: Image.Image, size: tuple[int, int]) -> str | None:
    """What is wrong with the size of `image` where `size` (H, W) is expected."""
    if (image.height, image.width) == size:
        return None
    return f"{image.width} x {image.height} pixels, expected {size[1]} x {size[0]} (width x height)"


def photo_problem(path: Path, size: tuple[int, int]) -> str | None:
    """Why the photo cannot be used in a data set of photos of `size` (H, W), by full decoding; None if it can."""
    try:
        wrong = size_problem(decode_photo(path), size)
    except UserError as error:
        return str(error)
    return wrong and f"{path}: {wrong}"


def photo_names(folder: Path) -> set[str]:
    """Files below `folder`, relative to it, with '/' between folders."""
    prefix = len(os.path.join(folder, ""))  # os.walk, for pathlib takes seconds for a whole data set
    found = (os.path.join(parent, name)[prefix:] for parent, _, names in os.walk(folder) for name in names)
    return {name.replace(os.sep, "/") for name in found}
