"""metrics/lpips.py against goldens and the lpips package."""

import numpy as np
import pytest
import torch

from metrics.lpips import LPIPS
from metrics.masks import pose_mask
from tests.formula import formula_images
from tests.helpers import REPOSITORY
from tests.metrics.conftest import GOLDENS, golden_images
from util.errors import UserError


def test_lpips_equals_goldens(formula_lpips):
    distances = formula_lpips(*golden_images(256, 176))
    np.testing.assert_allclose(distances, GOLDENS["lpips_alex_formula"], rtol=0, atol=1e-7)


def test_lpips_equals_the_package_image_by_image(formula_lpips):
    fakes, reals = golden_images(128, 64)
    fakes = torch.cat((fakes, reals[:1]))  # the last two are equal
    reals = torch.cat((reals, reals[:1]))
    expected = formula_lpips.package(fakes / 127.5 - 1, reals / 127.5 - 1).flatten()
    distances = formula_lpips(fakes, reals)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-8)
    assert distances[-1] == 0


def test_masked_lpips_and_masks_equal_published_goldens(formula_lpips):
    goldens = np.load(REPOSITORY / "tests/goldens/mask_lpips_goldens.npz")
    real, other = (
        np.round((formula_images(name, (5, 3, 128, 64)) + 1) * 127.5).astype(np.uint8)
        for name in ("mask_gt", "mask_fake")
    )
    fake = ((3 * real.astype(int) + other) // 4).astype(np.uint8)
    keypoints = np.where(goldens["keypoints_yx"] == -1, np.nan, goldens["keypoints_yx"])
    masks = np.stack([pose_mask(pose, (128, 64)) for pose in keypoints])
    assert (np.packbits(masks.reshape(5, -1), axis=1) == goldens["masks"]).all()
    images = torch.from_numpy(fake), torch.from_numpy(real)
    distances = formula_lpips(*images, torch.from_numpy(masks)[:, None])
    np.testing.assert_allclose(distances, goldens["lpips_mask"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(formula_lpips(*images), goldens["lpips_unmasked"], rtol=0, atol=1e-6)


def test_lpips_under_autocast_returns_float32(formula_lpips):
    images = golden_images(128, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances = formula_lpips(*images)
    assert distances.dtype == torch.float32
    np.testing.assert_allclose(distances, formula_lpips(*images), rtol=0.03)


def test_lpips_with_other_weights_raises_user_error(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not a torchvision alexnet state dict"):
        LPIPS(str(tmp_path / "a.pth"))
