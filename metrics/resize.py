"""How the field's evaluations bring an image to their size: Pillow's, torch's and OpenCV's filters, and their rounding.

Each takes an image uint8 (3,H,W) and a size (H, W); an image of that size keeps its levels. OpenCV itself is not
needed: its bilinear and bicubic filters, which do not anti-alias, are those of torch's `interpolate` (half-pixel
centers, edges repeated; bicubic with a = -0.75).
"""

from collections.abc import Callable

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from util.image import from_pil, to_pil

Size = tuple[int, int]


def pillow_bicubic(image: Tensor, size: Size) -> Tensor:
    """Anti-aliased, uint8."""
    return from_pil(to_pil(image).resize(size[::-1], Image.Resampling.BICUBIC))


def torch_bicubic(image: Tensor, size: Size) -> Tensor:
    """Anti-aliased on levels in [0, 1], then clamped and truncated to uint8, as CFLD does with its samples."""
    if image.shape[1:] == size:
        return image
    resized = F.interpolate(image[None] / 255, size, mode="bicubic", align_corners=False, antialias=True)[0]
    return resized.clamp(0, 1).mul(255).byte()


def opencv_bicubic(image: Tensor, size: Size) -> Tensor:
    """float32, neither rounded nor clipped: levels from below 0 to above 255."""
    return F.interpolate(image[None].float(), size, mode="bicubic", align_corners=False)[0]


def opencv_bilinear(images: Tensor, size: Size) -> Tensor:
    """Images (N,3,H,W) -> float32 (N,3,*size), not rounded."""
    return F.interpolate(images.float(), size, mode="bilinear", align_corners=False)


RESIZE: dict[str, Callable[[Tensor, Size], Tensor]] = {
    "pillow bicubic": pillow_bicubic, "torch bicubic": torch_bicubic, "opencv bicubic": opencv_bicubic,
}  # fmt: skip
