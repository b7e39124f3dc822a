"""metrics/lpips.py against goldens and the lpips package."""

import numpy as np
import pytest
import torch

from metrics.lpips import LPIPS
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
