"""Heat maps against a slow double-precision reference."""

import numpy as np
import pytest
import torch

from data.keypoints import JOINTS, draw_heat_maps, heat_map_factors, multiply_factors, scale_keypoints
from util.draw_pose import LIMBS


def slow_heat_maps(keypoints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    maps = np.zeros((len(keypoints), *size))
    for joint, (y, x) in enumerate(keypoints):
        if np.isnan(y):
            continue
        for row in range(size[0]):
            for col in range(size[1]):
                value = np.exp(-((row - y) ** 2 + (col - x) ** 2) / (2 * 6.0**2))
                maps[joint, row, col] = value if value >= 2.0**-100 else 0
    return maps


@pytest.mark.parametrize("size", [(32, 48), (128, 64)])
def test_draw_heat_maps_equals_a_double_precision_loop(size):
    random = np.random.RandomState(1)
    keypoints = random.randint(-40, 160, (2, 18, 2)).astype(np.float32)  # inside, outside, far outside
    keypoints[random.rand(2, 18) < 0.2] = np.nan
    maps = draw_heat_maps(torch.from_numpy(keypoints), size)
    assert maps.dtype == torch.float32
    for ours, joints in zip(maps.numpy(), keypoints.astype(np.float64)):
        np.testing.assert_array_equal(ours, slow_heat_maps(joints, size).astype(np.float32))


def test_draw_heat_maps_rounds_every_value_correctly():
    """All pairs of distances up to where nothing is left, each way: the product of both factors, in float32, is the
    exponential of the sum in float64, rounded once; none is denormal."""
    distances = torch.arange(-100, 101).double()
    origin = torch.zeros(1, 18, 2) + 100
    maps = draw_heat_maps(origin, (201, 201))[0]
    exact = torch.exp(-(distances.square()[:, None] + distances.square()) / 72)
    exact[exact < 2.0**-100] = 0
    assert 0 < (maps[0] > 0).double().mean() < 1  # the end is inside
    assert all(torch.equal(one, exact.float()) for one in maps)


def test_heat_map_factors_multiply_to_the_maps():
    keypoints = torch.tensor([[3.0, 5.0], [-2.0, 70.0], [torch.nan, torch.nan]]).repeat(1, 6, 1)
    rows, columns = heat_map_factors(keypoints, (8, 12))
    assert rows.shape == (1, 8, 18)
    assert columns.shape == (1, 12, 18)
    wanted = torch.exp(-(torch.arange(8).double() + 2).square() / 72) * 2.0**50
    torch.testing.assert_close(rows[0, :, 1], wanted, rtol=1e-14, atol=0)
    assert rows[0, 3, 0] == columns[0, 5, 0] == 2.0**50
    assert not rows[..., 2::3].any()
    assert not columns[..., 2::3].any()
    maps = multiply_factors(rows, columns)
    assert torch.equal(maps, draw_heat_maps(keypoints, (8, 12)))
    assert maps.is_contiguous(memory_format=torch.channels_last)


def test_float32_factors_suffice_for_bfloat16_maps():
    """From float32 factors, whose products are never denormal, bfloat16 maps are those of float64, but for one in a
    thousand values that lies between two of bfloat16."""
    keypoints = torch.randint(-40, 300, (4, 18, 2), generator=torch.Generator().manual_seed(0)).float()
    factors = heat_map_factors(keypoints, (256, 176), torch.float32)
    products = factors[0].double().unsqueeze(2) * factors[1].double().unsqueeze(1)
    assert {f.dtype for f in factors} == {torch.float32}
    assert products[products > 0].min() >= 2.0**-101
    assert products.max() <= 2.0**100
    ours = multiply_factors(*factors)
    exact = draw_heat_maps(keypoints, (256, 176))
    torch.testing.assert_close(ours, exact, rtol=3e-7, atol=2.0**-100)
    different = ours.bfloat16() != exact.bfloat16()
    assert different.float().mean() < 1e-3


def test_very_far_or_missing_joint_has_an_empty_map():
    keypoints = torch.tensor([[[1e9, -1e9], [torch.nan, torch.nan], [torch.nan, 5], [3, 4]]])
    sums = draw_heat_maps(keypoints, (64, 64)).sum((2, 3))[0]
    assert sums[:2].tolist() == [0, 0]
    assert sums[2] == 0
    assert sums[3] > 1


def test_scale_keypoints_truncates_towards_zero():
    keypoints = torch.tensor([[100.0, 101.0], [-1.0, -3.0], [torch.nan, torch.nan], [255.0, 175.0]])
    scaled = scale_keypoints(keypoints, (256, 176), (256, 256))
    wanted = [[100, int(101 * 256 / 176)], [-1, int(-3 * 256 / 176)], [np.nan, np.nan], [255, int(175 * 256 / 176)]]
    np.testing.assert_array_equal(scaled, np.array(wanted, np.float32))


def test_scale_keypoints_to_minus_one_is_not_missing():
    scaled = scale_keypoints(torch.tensor([[10.0, -3.0]]), (128, 64), (64, 32))
    assert scaled.tolist() == [[5.0, -1.0]]
    assert draw_heat_maps(scaled.expand(1, 18, 2), (64, 32)).max() > 0.9


def test_joints_are_coco_18_and_limbs_join_all():
    assert len(JOINTS) == 18
    assert JOINTS[14:] == ("right eye", "left eye", "right ear", "left ear")
    assert {joint for limb in LIMBS for joint in limb} == set(range(18))
