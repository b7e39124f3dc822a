"""The flicker of a background, on a rendered walk."""

import math

import numpy as np
import pytest

from data.synthetic.walk import render_walk
from inference.flicker import flicker, near_person


@pytest.fixture(scope="module")
def rendered_walk() -> tuple[np.ndarray, np.ndarray]:
    photos = render_walk("market", frames=4, cycles=0.5, yaw=60, seed=1)
    return np.stack([p.pixels.transpose(2, 0, 1) for p in photos]), np.stack([p.keypoints for p in photos])


def test_flicker_measures_changes_outside_the_person(rendered_walk):
    """A walk on a still background hardly flickers; a background that turns brighter by 3 flickers by 3."""
    images, track = rendered_walk
    images = np.clip(images, 10, 240)
    moved = np.abs(np.diff(images.astype(int), axis=0)).mean()
    still = flicker(images, track)
    assert still < 0.03 * moved
    brighter = images + np.array([0, 3, 0, 3], np.uint8)[:, None, None, None]
    assert flicker(brighter, track) == pytest.approx(3, abs=2 * still)


def test_flicker_without_anything_to_compare_is_nan(rendered_walk):
    images, track = rendered_walk
    assert math.isnan(flicker(images[:1], track[:1]))
    assert math.isnan(flicker(images, np.full_like(track, np.nan)))


def test_near_person_covers_a_disc_around_a_joint():
    assert not near_person(np.full((18, 2), np.nan), (40, 30)).any()
    single = np.full((18, 2), np.nan)
    single[4] = 45, 20
    y, x = np.mgrid[:90, :60]
    np.testing.assert_array_equal(near_person(single, (90, 60)), np.hypot(y - 45, x - 20) <= 10)
