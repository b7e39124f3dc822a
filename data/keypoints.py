"""Joints and their heat maps: OpenPose's COCO-18 order, on any device.

A pose is (18, 2) of (y, x); a missing joint is (NaN, NaN). "Right" is the person's own right.
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
TORSO = [2, 5, 8, 11]  # shoulders and hips

SIGMA = 6.0  # pixels of the network resolution
FAR = 1e6  # pixels from any image: where a missing joint's Gaussian stands
# Heat maps are 0 below this. It drowns in the first convolution's float32 sums, which pixels take part in; but
# processors multiply denormal numbers, below 2^-126, at a tenth of their rate, and a ring of those around each joint
# is 4 % of a map.
SMALLEST_BITS = 100
SMALLEST = 2.0**-SMALLEST_BITS


def scale_keypoints(keypoints: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """(..., 18, 2) in pixels of a photo of `from_size` (H, W) -> whole pixels of `to_size`, truncated towards 0."""
    scale = torch.tensor([to_size[0] / from_size[0], to_size[1] / from_size[1]], dtype=torch.float64)
    return (keypoints.double() * scale).trunc().to(keypoints.dtype)


def draw_heat_maps(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,18,2) whole pixels -> (B,18,H,W) float32 Gaussians of peak 1; a missing joint's map is 0 everywhere.

    exp(-((row - y)^2 + (col - x)^2) / (2 sigma^2)), correctly rounded on every device that has float64 (MPS has not),
    as in the published loader: the network amplifies last bits. 0 below 2^-100, where the published maps go on. Points
    outside the image leave their tail inside.
    """
    return multiply_factors(*heat_map_factors(keypoints, size))


def heat_map_factors(
    keypoints: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """(B,18,2) whole pixels -> what each row and each column give to the maps, times 2^50: (B,H,18) and (B,W,18).

    Both are looked up in a table made in float64 on the CPU, so they are the same on every device (MPS has float32
    only). float32 is enough for maps that become bfloat16. Times 2^50, so that no product of two is denormal.
    """
    table = _gaussian_table(keypoints.device, torch.float32 if keypoints.device.type == "mps" else dtype)
    factors = []
    for centers, length in zip(keypoints.nan_to_num(FAR).clamp(-FAR, FAR).int().unbind(-1), size):  # (B,18)
        positions = torch.arange(length, dtype=torch.int32, device=keypoints.device).unsqueeze(-1)
        distances = (positions - centers.unsqueeze(1)).abs_().clamp_(max=len(table) - 1)
        factors.append(table[distances.long()])
    return factors[0], factors[1]


def multiply_factors(rows: Tensor, columns: Tensor) -> Tensor:
    """The outer product of `heat_map_factors`: (B,H,18) and (B,W,18) -> (B,18,H,W) float32, joints last in memory."""
    maps = F.threshold(rows.unsqueeze(2) * columns.unsqueeze(1), 1, 0, inplace=True)
    return maps.float().mul_(SMALLEST).permute(0, 3, 1, 2)


@lru_cache
def _gaussian_table(device: torch.device, dtype: torch.dtype) -> Tensor:
    """2^50 exp(-d^2 / (2 sigma^2)) for d = 0, 1, ... until the exponential is below SMALLEST; the last entry is 0.

    Products of two entries are at most one part in 10^15 off; rounded to float32 they all equal the exponential of the
    sum (tests/test_keypoints.py tries every pair).
    """
    end = math.ceil(SIGMA * math.sqrt(2 * SMALLEST_BITS * math.log(2)))
    table = torch.exp(torch.arange(end + 1, dtype=torch.float64).square() / (-2 * SIGMA**2)) / SMALLEST**0.5
    table[-1] = 0
    return table.to(dtype).to(device)
