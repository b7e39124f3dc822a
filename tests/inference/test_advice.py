"""Advice: one line for each thing that is wrong, none for an ordinary photo."""

import numpy as np
import pytest

from inference.advice import Advice, advise, is_fatal
from inference.framing import Frame, can_be_framed, frame_person
from inference.people import Person
from tests.inference.test_framing import PARTS, SIZES, standing

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
PHOTO = (256, 176)


def advice(pose: np.ndarray, photo_size: tuple[int, int] = PHOTO, style: str = "fashion") -> list[Advice]:
    frame = frame_person(pose, SIZES[style], style) if can_be_framed(pose) else None
    return advise([Person(pose)], photo_size, frame, "me.jpg")


def without(*joints: int) -> np.ndarray:
    pose = standing()
    pose[list(joints)] = np.nan
    return pose


def only(found: list[Advice]) -> str:
    """The text of the one piece of advice, which is one line that names the photo, and which --force overrides."""
    assert len(found) == 1
    assert not found[0].fatal
    assert found[0].text.startswith("me.jpg: ")
    assert "\n" not in found[0].text
    return found[0].text


@pytest.mark.parametrize("style", SIZES)
@pytest.mark.parametrize("part", PARTS)
def test_advise_ordinary_photos_returns_nothing(style, part):
    pose = standing(style, part)
    assert advice(pose, SIZES[style], style) == []
    pose[[0, 4, 14, 15]] = np.nan  # seen from behind, a hand hidden
    assert advice(pose * 4 + 50, (4 * SIZES[style][0] + 100, 4 * SIZES[style][1] + 100), style) == []


def test_advise_nobody_is_fatal():
    [found] = advise([], PHOTO, None, "me.jpg")
    assert found.fatal
    assert "no person" in found.text


def test_advise_face_only_is_fatal_and_names_the_joints():
    """Advice is fatal exactly if no frame can be made."""
    face = np.full((18, 2), np.nan)
    face[[0, 14, 15]] = standing()[[0, 14, 15]]
    assert not can_be_framed(face)
    [found] = advice(face)
    assert is_fatal([found])
    assert "nose, right eye, left eye" in found.text


def test_advise_fractions_for_pixels_says_so():
    [found] = advice(standing() / 1000)
    assert is_fatal([found])
    assert found.text.endswith("are the keypoints fractions instead of pixels?")


def test_advise_missing_torso_or_few_joints_says_which():
    text = only(advice(without(5, 8)))
    assert "left shoulder and right hip not found" in text
    few = np.full((18, 2), np.nan)
    few[[1, 2, 5, 8, 11]] = standing(part="hip")[[1, 2, 5, 8, 11]]
    assert "only 5 of 18" in only(advice(few))


def test_advise_several_people_says_which_is_taken():
    """It is identified by the order from the left; small people in the background and phantoms do not count."""
    chosen, other = Person(standing() + (0, 100)), Person(standing() * 0.9)
    child, phantom = Person(standing() * 0.3), Person(standing() * 2, 0.1)
    assert advise([chosen, child, phantom], None, None, "me.jpg") == []
    assert "2 people found, and the one taken is number 2" in only(advise([chosen, other, child], None, None, "me.jpg"))
    assert "3 people" in only(advise([chosen, other, Person(standing() + 50)], None, None, "me.jpg"))


@pytest.mark.parametrize(("turn", "expected"), [(1, "sideways"), (2, "upside down"), (3, "sideways")])
def test_advise_turned_photo_says_how(turn, expected):
    pose = standing()
    for _ in range(turn):
        pose = np.stack([176 - pose[:, 1], pose[:, 0]], axis=1)
    assert expected in only(advise([Person(pose)], None, None, "me.jpg"))


def test_advise_joint_outside_the_photo_names_it():
    pose = standing()
    pose[4] = 120, 400
    assert "right wrist outside the photo of 176 x 256" in only(advise([Person(pose)], PHOTO, None, "me.jpg"))
    pose[4] = 120, -5  # estimators guess a little beyond the border
    assert advise([Person(pose)], PHOTO, None, "me.jpg") == []


def test_advise_cut_off_person_names_the_side():
    portrait = standing(part="hip")
    text = only(advice(portrait / 2, (128, 88), "market"))  # Market's photos reach to the feet
    assert "cut off" in text
    assert "bottom" in text
    assert "right" in only(advice(standing() + (0, 60)))
    headless = without(0, 14, 15, 16, 17)
    assert advice(headless) == []
    assert "head is cut off" in only(advise([Person(headless - (45, 0))], PHOTO, None, "me.jpg"))


def test_advise_small_photo_says_its_size():
    small = standing() * 0.4
    text = only(advice(small, (103, 71)))
    assert "70 x 102 pixels for an image of 176 x 256" in text
    assert advice(standing() * 0.7, (180, 124)) == []


def test_advise_without_photo_judges_the_pose_only():
    """A keypoint file has no photo that could be cut off or too small."""
    assert advise([Person(standing() * 0.1)], None, Frame(10, -500, 0, PHOTO), "dancer.json") == []


def test_advise_lists_every_fault():
    faults = advise([Person(without(11)), Person(standing())], (50, 35), Frame(5, -20, 0, PHOTO), "me.jpg")
    assert [fault.fatal for fault in faults] == [False] * len(faults)
    text = " ".join(fault.text for fault in faults)
    for part in ("left hip not found", "2 people", "outside the photo", "cut off", "larger photo"):
        assert part in text
