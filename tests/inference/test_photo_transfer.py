"""Parts of inference/photo_transfer.py; tests/scripts/test_transfer.py runs the whole."""

import numpy as np
import torch
from PIL import Image

from inference.framing import frame_person, identity_frame, to_frame
from inference.people import Person
from inference.photo_transfer import TransferResult, comparison_sheet, frame_poses, frame_source
from inference.sources import FoundPeople
from tests.inference.test_framing import standing

SIZE = (256, 176)


def found(pose: np.ndarray | None, photo_size: tuple[int, int] | None = None, name: str = "a.jpg") -> FoundPeople:
    return FoundPeople(name, [] if pose is None else [Person(pose)], photo_size)


def test_frame_source_of_stored_size_is_the_identity():
    assert frame_source(found(standing() * 0.9, SIZE), SIZE, "fashion")[0] == identity_frame(SIZE)
    frame, advice = frame_source(found(None, (300, 200)), SIZE, "fashion")
    assert frame is None
    assert advice[0].fatal


def test_frame_poses_keeps_or_frames_and_leaves_nobody_out():
    pose = standing() * 2 + 10
    framed = to_frame(pose, frame_person(pose, SIZE, "fashion"))
    poses = [found(pose, name="a"), found(None, name="b"), found(pose, SIZE, name="c")]
    result = frame_poses(poses, SIZE, "fashion", in_stored_pixels=None)
    assert result.names == ["a", "c"]
    assert [advice.text[:19] for advice in result.advice] == ["b: no person found;"]
    np.testing.assert_array_equal(result.keypoints, np.float32([framed, pose]))
    np.testing.assert_array_equal(
        frame_poses(poses, SIZE, "fashion", in_stored_pixels=True).keypoints[0], np.float32(pose)
    )


def test_frame_poses_of_a_sequence_few_bad_poses_give_no_advice():
    for bad, expected in ((1, []), (2, ["walk: 2 of 10 poses have faults, the first is a.jpg: no person found"])):
        poses = [found(standing() if number >= bad else None) for number in range(10)]
        result = frame_poses(poses, SIZE, "fashion", None, fps=25, smooth=False, what="walk")
        assert [advice.text.split(";")[0] for advice in result.advice] == expected
        assert result.keypoints.shape == (10 - bad, 18, 2)


def test_comparison_sheet_of_a_long_sequence_shows_some():
    image, poses = Image.new("RGB", SIZE[::-1]), np.zeros((30, 18, 2))
    levels = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 3, *SIZE)
    sheet = comparison_sheet(TransferResult([], image, poses[0], poses, levels), 12)
    assert sheet.size == (4 * 176, 12 * 256)
    assert [sheet.getpixel((3 * 176, row * 256))[0] for row in (0, 11)] == [0, 29]
