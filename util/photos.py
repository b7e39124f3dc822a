"""Photos as files: which files are photos, lists of their names, and whether one can be used."""

from pathlib import Path

import numpy as np
from PIL import Image

from util.errors import UserError

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
