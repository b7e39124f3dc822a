"""The 18 joints of a pose, in OpenPose's COCO-18 order, and their heat maps.

A pose is (18,2) of (y, x); a missing joint is (NaN, NaN). "Right" is the person's own right.
Shapes: B images, J = 18 joints, H rows, W columns.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip

NUM_JOINTS = len(JOINTS)
NOSE, NECK = 0, 1
SHOULDERS, HIPS, KNEES, EYES, EARS = [2, 5], [8, 11], [9, 12], [14, 15], [16, 17]  # right, then left
TORSO = SHOULDERS + HIPS

SIGMA = 6.0  # pixels of the network resolution
OFF_IMAGE = 1e6  # pixels; a missing joint's Gaussian is centered there, so nothing of it is inside the image
# Values below 2^-100 become 0: they do not change the float32 sums of the first convolution, but the smallest of them,
# below 2^-126, would be denormal numbers, which CPUs multiply at a tenth of their speed.
CUTOFF_BITS = 100
CUTOFF = 2.0**-CUTOFF_BITS


def scale_keypoints(keypoints: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """(...,18,2) on the CPU, in pixels of an image of `from_size` (H, W) -> pixels of `to_size`, truncated towards 0 to
    whole numbers, as published; NaN stays NaN."""
    scale = torch.tensor([to_size[0] / from_size[0], to_size[1] / from_size[1]], dtype=torch.float64)
    return (keypoints.double() * scale).trunc().to(keypoints.dtype)


def draw_heat_maps(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,J,2) whole pixels -> (B,J,H,W) float32 Gaussians of peak 1 on the same device, channels last in memory.

    The value at (row, column) is exp(-((row - y)^2 + (column - x)^2) / (2 SIGMA^2)), rounded to the nearest float32
    on every device that has float64 (MPS lacks it), because the network amplifies differences in the last bit. The
    published loader computes the same values, except that here those below CUTOFF are 0. The map of a missing joint
    is 0 everywhere; that of a joint outside the image holds the tail of its Gaussian.
    """
    return multiply_factors(*heat_map_factors(keypoints, size))


def heat_map_factors(
    keypoints: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """First half of `draw_heat_maps`: (B,J,2) -> the factors of the rows (B,H,J) and of the columns (B,W,J).

    A Gaussian is the product of a function of the row and one of the column. The halves are separate functions so that
    a compiled network can multiply the small factors itself instead of reading whole maps from memory.

    The factors are looked up in a table that the CPU computes in float64, so they are the same on every device. They
    are scaled by 2^50 each, so that no product is denormal, and have type `dtype`, or float32 on MPS, which has no
    float64; float32 is enough if the maps are then converted to bfloat16.
    """
    table = _gaussian_table(keypoints.device, torch.float32 if keypoints.device.type == "mps" else dtype)
    factors = []
    centers = keypoints.nan_to_num(OFF_IMAGE).clamp(-OFF_IMAGE, OFF_IMAGE).int()
    for center, length in zip(centers.unbind(-1), size):  # center: (B,J)
        positions = torch.arange(length, dtype=torch.int32, device=keypoints.device).unsqueeze(-1)  # (length,1)
        distances = (positions - center.unsqueeze(1)).abs_().clamp_(max=len(table) - 1)  # (B,length,J)
        factors.append(table[distances.long()])
    return factors[0], factors[1]


def multiply_factors(rows: Tensor, columns: Tensor) -> Tensor:
    """Second half of `draw_heat_maps`: (B,H,J) and (B,W,J) -> (B,J,H,W) float32, channels last in memory."""
    maps = F.threshold(rows.unsqueeze(2) * columns.unsqueeze(1), 1, 0, inplace=True)  # (B,H,W,J), scaled by 1 / CUTOFF
    return maps.float().mul_(CUTOFF).permute(0, 3, 1, 2)


@lru_cache
def _gaussian_table(device: torch.device, dtype: torch.dtype) -> Tensor:
    """2^50 exp(-d^2 / (2 SIGMA^2)) for d = 0, 1, ... until the exponential is below CUTOFF; the last entry is 0.

    The relative error of a product of two entries is at most 1e-15; rounded to float32, each product equals the
    exponential of the sum (tests/data/test_keypoints.py tries every pair).
    """
    end = math.ceil(SIGMA * math.sqrt(2 * CUTOFF_BITS * math.log(2)))
    table = torch.exp(torch.arange(end + 1, dtype=torch.float64).square() / (-2 * SIGMA**2)) / CUTOFF**0.5
    table[-1] = 0
    return table.to(dtype).to(device)
