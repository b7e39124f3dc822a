"""Framing: it reproduces the data sets' own framing, and crops show what their frames say."""

import numpy as np
import pytest
from PIL import Image

from data.keypoints import JOINTS
from data.synthetic.people import render_identity
from inference.framing import (
    PLACEMENTS,
    Frame,
    can_be_framed,
    crop,
    frame_people,
    frame_person,
    identity_frame,
    to_frame,
)
from util.errors import UserError

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # missing joints are no reason for one
SIZES = {"fashion": (256, 176), "market": (128, 64)}
PARTS = ("hip", "knee", "ankle")


def standing(style: str = "fashion", part: str = "ankle") -> np.ndarray:
    """(18,2): an upright person of the right size and place for `style`, known down to `part`, arms hanging."""
    height, width = SIZES[style]
    neck, lowest, length = (value * height for value in PLACEMENTS[style][part])
    top = (neck + lowest - length) / 2
    ends = {"hip": {"hip": 1.0}, "knee": {"hip": 0.6, "knee": 1.0}, "ankle": {"hip": 0.4, "knee": 0.7, "ankle": 1.0}}
    torso = length * ends[part]["hip"]
    down = {"nose": -0.4, "eye": -0.45, "ear": -0.43, "neck": 0, "shoulder": 0, "elbow": 0.5, "wrist": 0.9}
    down.update({name: value * length / torso for name, value in ends[part].items()})
    across = {"nose": 0, "neck": 0, "eye": 0.07, "ear": 0.13, "shoulder": 0.25, "elbow": 0.28, "wrist": 0.3}
    pose = np.full((18, 2), np.nan)
    for number, joint in enumerate(JOINTS):
        side, name = joint.split() if " " in joint else ("left", joint)
        if name in down:
            x = width / 2 + (1 if side == "left" else -1) * across.get(name, 0.15) * torso
            pose[number] = top + down[name] * torso, x
    return pose


@pytest.mark.parametrize("style", SIZES)
@pytest.mark.parametrize("part", PARTS)
def test_frame_person_standard_person_gives_the_data_sets_frame(style, part):
    """A person who stands like the data set's people, in a photo of any size, gets the frame of the data set."""
    pose, size = standing(style, part), SIZES[style]
    np.testing.assert_allclose(frame_person(pose, size, style)[:3], (1, 0, 0), atol=1e-9)
    found = frame_person(pose * 3.7 + (120, -45), size, style)
    np.testing.assert_allclose(found[:3], (1 / 3.7, 120, -45), rtol=1e-9)
    assert found.size == size


@pytest.mark.parametrize("style", SIZES)
def test_frame_person_rendered_people_in_a_large_photo_are_centered_at_their_own_size(style):
    """The photo around them makes no difference.

    Rendered people stand up to 0.1 of the height lower than the real ones, so their own places are no measure.
    """
    size, scales, middles = SIZES[style], [], []
    for photo in (photo for identity in (1, 2) for photo in render_identity(identity, style, 1, seed=2)):
        corner = np.array([150, 200])
        enlarged = photo.keypoints * 3 + corner
        frame, plain = (frame_person(joints, size, style) for joints in (enlarged, photo.keypoints))
        joints = to_frame(enlarged, frame)
        np.testing.assert_allclose(joints, to_frame(photo.keypoints, plain), atol=1e-3)
        scales.append(frame.scale * 3)
        middles.append(np.nanmean(joints[:, 1]))

        image = Image.fromarray(photo.pixels)
        canvas = Image.new("RGB", (1000, 1200))
        canvas.paste(image.resize((3 * size[1], 3 * size[0])), tuple(corner[::-1]))
        rows, columns = np.mgrid[: size[0], : size[1]] / plain.scale
        inside = (abs(rows + plain.top - size[0] / 2) < size[0] / 2 - 3) & (
            abs(columns + plain.left - size[1] / 2) < size[1] / 2 - 3
        )
        shown, expected = (np.asarray(crop(*pair), int)[inside] for pair in ((canvas, frame), (image, plain)))
        assert inside.mean() > 0.6
        assert np.abs(shown - expected).mean() < 3
    assert 0.9 < min(scales) < max(scales) < 1.25
    np.testing.assert_allclose(middles, size[1] / 2, atol=0.12 * size[1])


def test_to_frame_shifts_and_scales_and_keeps_missing_joints():
    frame = Frame(0.5, 10, -20, (256, 176))
    np.testing.assert_allclose(to_frame(np.array([[10, -20], [110, 80]]), frame), [[0, 0], [50, 50]])
    assert np.isnan(to_frame(np.full((18, 2), np.nan), frame)).all()


def test_frame_person_stretched_arms_stay_inside():
    pose = standing()
    pose[[4, 7]] = [(40, -70), (40, 246)]
    frame = frame_person(pose, SIZES["fashion"], "fashion")
    joints = to_frame(pose, frame)
    assert frame.scale < 0.6
    assert (joints >= 0).all()
    assert (joints < SIZES["fashion"]).all()


def test_frame_person_at_the_side_is_shifted_inside():
    """The mean of the joints would leave the outstretched arm outside."""
    pose = standing()
    pose[7, 1] = 190
    frame = frame_person(pose, SIZES["fashion"], "fashion")
    assert frame.scale == pytest.approx(1)
    assert to_frame(pose, frame)[7, 1] == pytest.approx(176 * 0.98, abs=1e-3)


def test_frame_person_derives_missing_joints_where_it_can():
    """The neck comes from the shoulders, the length skips missing knees, hips come from the head."""
    size, expected = SIZES["fashion"], frame_person(standing(), SIZES["fashion"], "fashion")
    pose = standing()
    pose[[1, 9, 12]] = np.nan
    np.testing.assert_allclose(frame_person(pose, size, "fashion")[:2], expected[:2], atol=1e-9)
    head = standing(part="hip")
    head[[8, 11]] = np.nan
    assert can_be_framed(head)
    assert frame_person(head, size, "fashion").scale == pytest.approx(1, abs=0.1)
    for known in ([], [1], [2], [0, 14, 15], [9, 10], [8, 9]):
        pose = np.full((18, 2), np.nan)
        pose[known] = standing()[known]
        assert not can_be_framed(pose)


def test_frame_person_unknown_data_set_is_framed_like_fashion():
    """The fractions of the height are those of fashion, whatever the aspect ratio."""
    wide = frame_person(standing(), (128, 128), "mine")
    np.testing.assert_allclose(wide[:3], (0.5, 0, 88 - 128), atol=1e-9)
    assert wide.size == (128, 128)


def test_frame_people_sequence_has_one_scale_and_follows_smoothly():
    random = np.random.default_rng(0)
    steady = standing()[None] + np.linspace((0, 0), (30, 400), 60)[:, None]
    size = SIZES["fashion"]
    frames = frame_people(steady, size, "fashion", sigma=12)
    corners = np.array([(frame.top, frame.left) for frame in frames])
    np.testing.assert_allclose(corners, np.linspace((0, 0), (30, 400), 60), atol=1e-6)  # also at its ends
    noisy = steady + random.normal(0, 4, (60, 1, 2))
    noisy[30] = 2 * noisy[30]
    shaken = frame_people(noisy, size, "fashion", sigma=12)
    assert len(shaken) == 60
    assert len({frame.scale for frame in shaken}) == 1
    assert shaken[0].scale == pytest.approx(1, abs=0.02)
    jumps = np.diff([(frame.top, frame.left) for frame in shaken], n=2, axis=0)
    assert np.abs(jumps).max() < 1.5
    assert frame_people(steady[:1], size, "fashion") == [frame_person(steady[0], size, "fashion")]


def ramp(height: int, width: int) -> Image.Image:
    """Red grows by 2 a column, green by 2 a row."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([2 * columns, 2 * rows, 0 * rows], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
def test_crop_of_a_ramp_keeps_its_values(scale):
    """Image pixel (i, j) is the photo at ((i, j) + 1/2) / scale, less half a pixel."""
    frame = Frame(scale, 12.3, 21.7, (30, 20))
    image = np.asarray(crop(ramp(100, 100), frame), float)
    assert image.shape == (30, 20, 3)
    i, j = np.mgrid[:30, :20]
    np.testing.assert_allclose(image[..., 1], 2 * (12.3 + (i + 0.5) / scale - 0.5), atol=1)
    np.testing.assert_allclose(image[..., 0], 2 * (21.7 + (j + 0.5) / scale - 0.5), atol=1)


def test_crop_whole_photo_loses_no_line_to_a_rounding_error():
    photo = ramp(100, 50)
    image = crop(photo, Frame(0.64, -1e-13, 1e-13, (64, 32)))
    np.testing.assert_array_equal(image, photo.resize((32, 64), Image.Resampling.BICUBIC, reducing_gap=3.0))


def test_crop_shrinking_averages():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (400, 200)).reshape(400, 400)).convert("RGB")
    image = np.asarray(crop(stripes, Frame(0.13, 3, 5, (40, 30))), int)
    assert np.abs(image - 127).max() < 20


def test_crop_outside_the_photo_continues_its_border():
    """A backdrop continues in its own color; what covers a smaller part of the border fades away."""
    plain = Image.new("RGB", (50, 80), (200, 190, 180))
    image = np.asarray(crop(plain, Frame(0.7, -60, -30, (128, 64))))
    assert (image == (200, 190, 180)).all()
    pixels = np.full((80, 50, 3), 220, np.uint8)
    pixels[:, 20:30] = 10  # a pole from top to bottom
    below = np.asarray(crop(Image.fromarray(pixels), Frame(1.0, 0, 0, (128, 50))))
    np.testing.assert_array_equal(below[:80], pixels)
    column = below[79:, 25, 0].astype(int)
    assert column[0] == 10
    assert (np.diff(column) >= 0).all()
    assert column[-1] == 220
    assert (below[:, :20] == 220).all()


def test_crop_identity_frame_returns_the_photo():
    photo = ramp(128, 64)
    np.testing.assert_array_equal(np.asarray(crop(photo, identity_frame((128, 64)))), np.asarray(photo))


@pytest.mark.parametrize(("top", "left"), [(500, 0), (-500, 0), (0, 300), (0, -300)])
def test_crop_frame_outside_the_photo_raises(top, left):
    with pytest.raises(UserError, match="outside the photo"):
        crop(ramp(128, 64), Frame(1.0, top, left, (128, 64)))
