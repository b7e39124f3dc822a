"""All ways between uint8 pictures and the networks' [-1, 1], resizing and writing."""

from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from util.files import write_whole

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
    """uint8 (B,3,H,W) -> uint8 at `size` (H, W), bilinear with half-pixel centres and no anti-aliasing."""
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
    write_whole(path, lambda file: image.save(file, **how))


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
