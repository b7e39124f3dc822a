"""metrics/pixel.py against goldens, scikit-image and closed forms."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from data import dataset_names, find_dataset
from metrics.pixel import score_pixels
from metrics.protocols import PROTOCOLS, Protocol
from tests.metrics.conftest import GOLDENS, PIXELS, golden_images
from tests.metrics.reference_metrics import reference_scores

DPTN, STANDARD = PROTOCOLS["dptn"], PROTOCOLS["standard"]


def score_batch(fakes: torch.Tensor, reals: torch.Tensor, protocol: Protocol, dataset_mode: str) -> pd.DataFrame:
    """A row for each pair."""
    return pd.DataFrame(
        [score_pixels(fake, real, None, PIXELS, protocol, dataset_mode) for fake, real in zip(fakes, reals)]
    )


@pytest.mark.parametrize(
    ("golden", "protocol", "dataset_mode"),
    [
        ("pixel_fashion", DPTN, "fashion"),
        ("pixel_fashion_unpadded", dataclasses.replace(DPTN, pad=False), "fashion"),
        ("pixel_market", DPTN, "market"),
    ],
)
def test_score_pixels_equals_goldens(golden, protocol, dataset_mode):
    scores = score_batch(*golden_images(*find_dataset(dataset_mode).stored_size), protocol, dataset_mode)
    for column, name in enumerate(GOLDENS["pixel_columns"]):
        np.testing.assert_allclose(scores[name], GOLDENS[golden][:, column], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("dataset_mode", dataset_names())
@pytest.mark.parametrize("protocol", [DPTN, STANDARD], ids=lambda p: p.name)
def test_score_pixels_agrees_with_scikit_image(protocol, dataset_mode):
    """Also where float32 variances would lose all digits: dark, bright, flat, low contrast, half black, half white."""
    size = find_dataset(dataset_mode).stored_size
    random = np.random.RandomState(0)
    noise = lambda low, high: random.randint(low, high, (3, *size))  # noqa: E731
    smooth = golden_images(*size)[1][0].numpy().astype(int)
    halves = np.zeros((3, *size), int)
    halves[:, :, size[1] // 2 :] = 255
    cases = {
        "unrelated": (noise(0, 256), smooth),
        "a level apart": (smooth - 1, smooth),
        "a little noise": (halves + noise(-3, 4), halves),
        "dark": (noise(0, 2), noise(0, 1)),
        "bright": (255 - noise(0, 3), 255 - noise(0, 3)),
        "low contrast": (noise(100, 120), noise(100, 120)),
        "inverse": (255 - halves + noise(-9, 10), halves),
        "flat": (np.full((3, *size), 93), np.full((3, *size), 255)),
        "flat and white": (np.full((3, *size), 255), np.full((3, *size), 93)),
    }
    for case, pair in cases.items():
        fake, real = (np.clip(image, 0, 255).astype(np.uint8) for image in pair)
        with np.errstate(invalid="ignore"):
            expected = reference_scores(
                fake.transpose(1, 2, 0), real.transpose(1, 2, 0), size[1] + 2 * protocol.margin(dataset_mode),
                full_range=protocol is STANDARD,
            )  # fmt: skip
        images = (torch.from_numpy(image) for image in (fake, real))
        scores = score_pixels(*images, None, PIXELS, protocol, dataset_mode)
        no_range = protocol is DPTN and fake.min() == (255 if protocol.margin(dataset_mode) else fake.max())
        for name in PIXELS:
            if not (name == "ssim_256" and no_range):  # which is undefined then
                assert scores[name] == pytest.approx(expected[name], abs=5e-7), (case, name)


@pytest.mark.parametrize("protocol", [DPTN, STANDARD], ids=lambda p: p.name)
def test_score_pixels_of_equal_images_is_perfect(protocol):
    image = golden_images(256, 176)[0]
    scores = score_batch(image, image, protocol, "fashion")
    assert scores.to_dict("list") == {
        "psnr": [np.inf] * 3, "ssim": [1] * 3, "ssim_256": [1] * 3, "mae": [0] * 3, "l1": [0] * 3,
    }  # fmt: skip


def test_padding_changes_scores_as_documented():
    """As in the docstring of protocols.py."""
    images = golden_images(256, 176)
    dptn, plain = (score_batch(*images, dataclasses.replace(DPTN, pad=pad), "fashion") for pad in (True, False))
    np.testing.assert_allclose(dptn["psnr"] - plain["psnr"], 10 * np.log10(256 / 176))
    np.testing.assert_allclose(dptn["l1"], plain["l1"] * 176 / 256)
    np.testing.assert_allclose(dptn["ssim"], 0.69 * plain["ssim"] + 0.31, atol=0.01)


def test_masked_metrics_are_those_of_images_black_outside_the_mask():
    fakes, reals = golden_images(128, 64)
    mask = torch.zeros(1, 128, 64, dtype=torch.bool)
    mask[:, 30:90, 20:50] = True
    for fake, real in zip(fakes, reals):
        scores = score_pixels(fake, real, mask, ["mask_ssim", "mask_psnr"], STANDARD, "fashion")
        fake, real = (image.permute(1, 2, 0).numpy().copy() for image in (fake, real))
        for image in (fake, real):
            image[:30] = image[90:] = image[:, :20] = image[:, 50:] = 0
        expected = reference_scores(fake, real, 64, full_range=True)
        assert scores["mask_ssim"] == pytest.approx(expected["ssim_256"], abs=1e-7)
        assert scores["mask_psnr"] == pytest.approx(expected["psnr"], abs=1e-7)
