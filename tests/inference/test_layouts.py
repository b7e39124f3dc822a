"""The layouts of pose programs: the same person is found in each."""

from typing import Any

import numpy as np
import pytest

from data.keypoints import JOINTS
from inference.formats import read_people
from inference.joints import COCO_17, from_openpose18
from inference.photos import Photos
from tests.inference.pose_files import PERSON, save
from util.errors import UserError

SIZE = (600, 400)


def triples(names: tuple[str, ...] = COCO_17, confidence: float = 0.9) -> list[float]:
    """PERSON as a flat list of x, y, confidence."""
    points = from_openpose18(PERSON, names).tolist()
    return [number for y, x in points for number in ([0, 0, 0] if y != y else [x, y, confidence])]


def pairs(names: tuple[str, ...] = COCO_17) -> list[list[float]]:
    """PERSON as a list of [x, y]; a missing joint is [0, 0]."""
    return np.reshape(triples(names), (-1, 3))[:, :2].tolist()


def axis(number: int) -> list[float]:
    return [pair[number] for pair in pairs()]


SCORES = triples()[2::3]
DETECTION = {"image_id": "a.jpg", "category_id": 1, "keypoints": triples(), "score": 2.9}
COCO = {"images": [{"id": 1, "file_name": "C:\\photos\\a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "keypoints": triples(confidence=2)}]}  # fmt: skip
INSTANCE = {"keypoints": pairs(), "keypoint_scores": SCORES, "bbox": [[1, 2, 3, 4]], "bbox_score": 0.5}
FRACTIONS = (np.array(pairs()) / (400, 600)).tolist()
YOLO_LINE = " ".join(map(str, [0, 0.5, 0.5, 0.3, 0.8, *(n for xy in FRACTIONS for n in (*xy, 2 if any(xy) else 0))]))
LAYOUTS: dict[str, tuple[str, Any]] = {
    "AlphaPose": ("detections", [DETECTION]),
    "AlphaPose, Halpe's 26 joints": ("detections", [{**DETECTION, "keypoints": triples() + [5, 5, 0.9] * 9}]),
    "AlphaPose cmu": ("openpose", {"a.jpg": {"version": "AlphaPose v0.3", "bodies": [{"joints": triples(JOINTS)}]}}),
    "AlphaPose open": ("openpose", {"a.jpg": {"people": [{"pose_keypoints_2d": triples(JOINTS)}]}}),
    "OpenPose's old key": ("openpose", {"people": [{"face_keypoints": [], "pose_keypoints": triples(JOINTS)}]}),
    "openpose-editor": ("openpose-editor", {"width": 400, "height": 600, "keypoints": [pairs(JOINTS)]}),
    "MMPose": ("detections", [INSTANCE]),
    "MMPose, frames": ("detections", [{"frame_id": 0, "instances": [INSTANCE]}]),
    "MMPose, saved": ("detections", {"meta_info": {}, "instance_info": [INSTANCE]}),
    "YOLO": ("detections", [{"name": "person", "confidence": 0.5, "box": {},
                             "keypoints": {"x": axis(0), "y": axis(1), "visible": SCORES}}]),
    "COCO of Windows": ("coco", COCO),
    "YOLO's text": ("yolo", YOLO_LINE + "\n"),
    "YOLO's prediction": ("yolo", YOLO_LINE + " 0.87"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_read_people_of_each_layout_finds_each_joint(layout, tmp_path):
    """COCO's joints have no neck: it is the middle of the shoulders, which is PERSON's."""
    format_name, content = LAYOUTS[layout]
    found = read_people(save(tmp_path / "a.json", content), photos=Photos(size=SIZE))
    assert found.format_name == format_name
    ((person,),) = found.people.values()
    assert list(found.people) == ["a.jpg"]
    np.testing.assert_allclose(person.keypoints, PERSON, atol=0.01)


def test_read_people_confidence_is_that_of_joints_times_that_of_the_person(tmp_path):
    """AlphaPose's scores beyond 1, COCO's flags and missing scores count as 1."""
    found = {}
    for layout in ("MMPose", "YOLO", "AlphaPose", "COCO of Windows", "openpose-editor"):
        ((person,),) = read_people(save(tmp_path / "a.json", LAYOUTS[layout][1])).people.values()
        found[layout] = person.confidence
    expected = {"MMPose": 0.45, "YOLO": 0.45, "AlphaPose": 0.9, "COCO of Windows": 1, "openpose-editor": 1}
    assert found == pytest.approx(expected)


def test_read_people_of_a_results_list_groups_by_image(tmp_path):
    """COCO's results have numbers of images, AlphaPose's names."""
    numbered = [{**DETECTION, "image_id": number} for number in (397133, 5, 397133)]
    people = read_people(save(tmp_path / "results.json", numbered)).people
    assert {name: len(found) for name, found in people.items()} == {"000000397133.jpg": 2, "000000000005.jpg": 1}


def test_read_people_counts_annotations_with_a_box_only(tmp_path):
    """COCO marks them by no keypoints, or by keypoints that are all 0."""
    boxes = [{"id": 2, "image_id": 1, "bbox": [0, 0, 9, 9]}, {"id": 3, "image_id": 1, "keypoints": [0] * 51}]
    found = read_people(save(tmp_path / "a.json", {**COCO, "annotations": [*boxes, *COCO["annotations"]]}))
    assert [len(people) for people in found.people.values()] == [1]
    assert found.without_joints == 2


def test_read_people_of_a_results_list_counts_boxes(tmp_path):
    car = {"name": "car", "box": {"x1": 1}}
    found = read_people(save(tmp_path / "a.json", [car, LAYOUTS["YOLO"][1][0]]))
    assert [len(people) for people in found.people.values()] == [1]
    assert found.without_joints == 1


def test_read_people_takes_a_first_joint_that_is_null(tmp_path):
    keypoints = [None, *([[x, 2.0 * x] for x in range(1, 17)])]
    found = read_people(save(tmp_path / "a.json", [{"keypoints": keypoints, "keypoint_scores": [0.5] * 17}]))
    ((person,),) = found.people.values()
    assert np.isnan(person.keypoints[0]).all()
    assert person.keypoints[15].tolist() == [2.0, 1.0]  # the left eye, COCO's joint 1


def test_read_people_of_a_folder_accepts_empty_lists(tmp_path):
    """MMPose and YOLO write one for a photo without people."""
    save(tmp_path / "a.json", [])
    save(tmp_path / "b.json", [INSTANCE])
    found = read_people(tmp_path)
    assert found.format_name == "detections"
    assert {name: len(people) for name, people in found.people.items()} == {"a.jpg": 0, "b.jpg": 1}


def test_read_people_of_a_folder_of_yolo_texts(tmp_path):
    """An empty text is a photo without people."""
    save(tmp_path / "a10.txt", YOLO_LINE)
    save(tmp_path / "a2.txt", "\n")
    found = read_people(tmp_path, photos=Photos(size=SIZE))
    assert found.format_name == "yolo"
    assert {name: len(people) for name, people in found.people.items()} == {"a2.jpg": 0, "a10.jpg": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"keypoints": [1, 2, 3] * 18}], "keypoints of 18 joints, expected COCO's 17"),
        ([{"keypoints": [1] * 50}], "50 numbers in keypoints, expected x, y, confidence"),
        ([{"keypoints": 5}], "no keypoints, or one of another type than expected"),
        ([{"keypoints": None}, {"bbox": []}], "no person in it; 2 have no known joint"),
        ([{"keypoints": [[1, 2]] * 17, "keypoint_scores": [1]}], "expected one confidence for each of 17 joints"),
        ([{"keypoints": [[1, 2, 3, 4]] * 17}], "expected a list of [x, y]"),
        ([{"keypoints": {"x": [1]}}], "no y, or one of another type than expected"),
        ([{"image_id": None, "keypoints": [1, 2, 3] * 17}], "no image_id"),
        ([{"image_id": "../a.jpg", "keypoints": [9, 2, 3] * 17}], "'../a.jpg' cannot be the name"),
        ([{"instances": 5}], "no instances"),
        ([{"instances": [5]}, {"instances": []}], "no keypoints"),
        ({"width": 64, "height": 128, "keypoints": [[[1, 2]] * 17]}, "keypoints of 17 joints, expected 18 or 25"),
        ({"width": 64, "height": 128, "keypoints": [5]}, "expected a list of [x, y], got 5"),
        ({"width": 64, "height": 128, "keypoints": [[None] * 18]}, "no person in it; 1 have no known joint"),
        ({"a.jpg": {"bodies": []}, "x/../a.jpg": {"bodies": []}}, "cannot be the name"),
        ({"/a.jpg": {"bodies": []}, "a.jpg": {"bodies": []}}, "two of its photos have one name"),
        ({**COCO, "images": [{"id": 1, "file_name": "/x/a.jpg"}, {"id": 2, "file_name": "/y/a.jpg"}]}, "two images"),
        ({"people": [{"pose_keypoints_2d": [9, 9, 1] * 18}], "width": 1, "height": 1e-9}, "are not a size"),
        ("0 0.5 0.5 0.1 0.1 " + "0.5 " * 60, "65 numbers in a line, expected 5 of class and box"),
        ("0 0.5 0.5 0.1 0.1 " + "9 9 1 " * 17, "joints beyond 2: fractions of the photo from 0 to 1 are expected"),
        ("0 0.5 0.5 0.1 0.1 " + "1 1 1 " * 17, "the photo's size is needed"),
        ("0 0.5 0.5 0.1 0.1 " + "nan " * 51, "nan is not a number within ±1,000,000"),
    ],
)
def test_read_people_bad_layout_is_one_clear_error(content, message, tmp_path):
    with pytest.raises(UserError) as caught:
        read_people(save(tmp_path / "bad.json", content))
    assert message in str(caught.value)
    assert "bad.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("point", "place"), [((1, 2), (2, 1)), ((1, 0.5), (0.5, 1)), ((0.5, 0.99), (594, 200))])
def test_read_people_of_small_numbers_outside_the_photo_are_pixels(point, place, tmp_path):
    """As fractions, 1 is the first column that the photo does not have. Files of examples have such placeholders."""
    found = read_people(save(tmp_path / "a.json", [{"keypoints": [point] * 17}]), photos=Photos(size=SIZE))
    np.testing.assert_allclose(found.people["a.jpg"][0].keypoints, np.broadcast_to(place, (18, 2)), rtol=1e-6)


def test_read_people_beyond_what_a_csv_holds_is_refused(tmp_path):
    frame = {"people": [{"pose_keypoints_2d": [900_000, 9, 1] * 18}], "canvas_width": 1, "canvas_height": 1}
    file = save(tmp_path / "a.json", frame)
    with pytest.raises(UserError, match="joints beyond 1,000,000 pixels"):
        read_people(file, photos=Photos(size=SIZE))


def test_read_people_of_a_windows_path_in_a_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    content = {**COCO, "images": [{"id": 1, "file_name": "\\\\server\\share\\photos\\a.jpg"}]}
    assert list(read_people(save(tmp_path / "a.json", content), photos=Photos(tmp_path / "photos")).people) == ["a.jpg"]
