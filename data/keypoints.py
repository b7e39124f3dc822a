"""Joints and their heat maps: OpenPose's COCO-18 order, on any device.

A pose is (18, 2) of (y, x); a missing joint is (NaN, NaN). "Right" is the person's own right.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip

# Pairs of joints that a skeleton joins with a line.
LIMBS = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

SIGMA = 6.0  # pixels of the network resolution


def scale_keypoints(keypoints: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """(..., 18, 2) in pixels of a photo of `from_size` (H, W) -> whole pixels of `to_size`, truncated towards 0."""
    scale = torch.tensor([to_size[0] / from_size[0], to_size[1] / from_size[1]], dtype=torch.float64)
    return (keypoints.double() * scale).trunc().to(keypoints.dtype)


def draw_heat_maps(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,18,2) whole pixels -> (B,18,H,W) float32 Gaussians of peak 1; a missing joint's map is 0 everywhere.

    exp(-((row - y)^2 + (col - x)^2) / (2 sigma^2)). Squared distances are whole numbers, so each value is looked up
    in a table made in float64: correctly rounded on every device, as in the published loader (the network amplifies
    last bits), and faster than exponentials. Points outside the image leave their tail inside.
    """
    far = 4 * max(size) + 1000  # where every value is 0, and squares still fit an int32
    y, x = keypoints.nan_to_num(far).clamp(-far, far).int().unsqueeze(-1).unbind(-2)  # (B,18,1)
    rows, columns = (torch.arange(length, dtype=torch.int32, device=keypoints.device) for length in size)
    squared = (rows - y).square().unsqueeze(-1) + (columns - x).square().unsqueeze(-2)  # (B,18,H,W)
    table = _gaussian_table(keypoints.device)
    return table.gather(0, squared.clamp_(max=len(table) - 1).long().flatten()).view_as(squared)


@lru_cache
def _gaussian_table(device: torch.device) -> Tensor:
    """exp(-k / (2 sigma^2)) for k = 0, 1, ... until float32 has nothing left but 0, which is the last entry."""
    end = math.ceil(2 * SIGMA**2 * 150 * math.log(2))  # float32 rounds anything below 2^-150 to 0
    values = torch.exp(torch.arange(end + 1, dtype=torch.float64) / (-2 * SIGMA**2)).float()
    assert values[-1] == 0
    return values.to(device)
