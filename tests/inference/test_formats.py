"""Pose files of other programs: real layouts, round trips, and everything that can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.keypoints import JOINTS
from inference.formats import read_people, write_poses
from inference.layouts import WRITTEN_FORMATS
from inference.people import first_pose, rank_all
from inference.photos import Photos
from tests.inference.pose_files import FIXTURES, PERSON, PLACES, random_poses, save, write_photos
from util.errors import UserError

SIZE = (600, 400)
FILES = {
    "openpose/body25_000000000000_keypoints.json": ("openpose", "body25_000000000000.jpg"),
    "openpose/coco18_000000000000_keypoints.json": ("openpose", "coco18_000000000000.jpg"),
    "controlnet_fractions.json": ("dwpose", "controlnet_fractions.jpg"),
    "dwpose_pixels.json": ("dwpose", "dwpose_pixels.jpg"),
    "coco_person_keypoints.json": ("coco", "000000425226.jpg"),
    "mediapipe_landmarks.json": ("mediapipe", "mediapipe_landmarks.jpg"),
    "mediapipe_results.json": ("mediapipe", "mediapipe_results.jpg"),
}
JSON_PER_PHOTO = ["openpose", "openpose-body25", "dwpose", "mediapipe"]
NO_NECK = ["coco", "mediapipe"]


@pytest.fixture
def some_poses() -> dict[str, np.ndarray]:
    return random_poses()


@pytest.fixture
def photos(tmp_path, some_poses) -> Path:
    return write_photos(tmp_path / "photos", some_poses)


def read_poses(path: Path, format_name: str | None = None, photos: Photos | None = None) -> dict[str, np.ndarray]:
    people = read_people(path, format_name, photos or Photos()).people
    return {name: first_pose(found) for name, found in rank_all(people).items()}


def body(*numbers: float) -> dict:
    """OpenPose's person of 18 joints that are all at (x, y), with its confidence."""
    return {"pose_keypoints_2d": [*numbers] * 18}


def spread(size: float) -> dict:
    """A person of that extent in x."""
    return {"pose_keypoints_2d": [10, 10, 0.5, 10 + size, 10, 0.5, *[0] * 48]}


def marks(**changes: object) -> list[dict]:
    return [{"x": 0.5, "y": 0.5, "z": 0.0, "visibility": 0.9, **changes} for _ in range(33)]


@pytest.mark.parametrize(("file", "expected"), FILES.items())
def test_read_people_detects_the_format_and_finds_each_joint(file, expected):
    """Of two people in a file, the more prominent one is compared."""
    found = read_people(FIXTURES / file, photos=Photos(size=SIZE))
    assert found.format_name == expected[0]
    poses = read_poses(FIXTURES / file, photos=Photos(size=SIZE))
    pose = poses[expected[1]]
    assert pose.dtype == np.float32
    np.testing.assert_allclose(pose, PERSON, atol=0.01)


def test_places_have_the_persons_right_on_the_photos_left():
    """The test data itself must be plausible: the person faces the viewer."""
    pairs = [(JOINTS.index(name), JOINTS.index(name.replace("right", "left"))) for name in PLACES if "right" in name]
    for right, left in pairs:
        assert not PERSON[right, 1] >= PERSON[left, 1]
    down = [
        PERSON[JOINTS.index(name), 0] for name in ("left eye", "nose", "neck", "left hip", "left knee", "left ankle")
    ]
    assert down == sorted(down)


@pytest.mark.parametrize("file", ["controlnet_fractions.json", "dwpose_pixels.json", "mediapipe_results.json"])
def test_read_people_without_photos_uses_declared_sizes(file):
    """Fractions are of the size that the file declares, and pixels stay those of its canvas."""
    scale = 0.5 if file == "dwpose_pixels.json" else 1
    (pose,) = read_poses(FIXTURES / file).values()
    np.testing.assert_allclose(pose, PERSON * scale, atol=0.01)


def test_rank_all_puts_the_chosen_first_or_raises():
    file = FIXTURES / "openpose/body25_000000000000_keypoints.json"
    people = read_people(file).people
    assert [len(found) for found in people.values()] == [2]
    ((first, _),) = rank_all(people, "first").values()
    np.testing.assert_allclose(first.keypoints[0], (50, 70))
    with pytest.raises(UserError, match="body25_000000000000.jpg: 2 people"):
        rank_all(people, "error")
    assert [len(p) for p in read_people(FIXTURES / "coco_person_keypoints.json").people.values()] == [2, 0]


def test_first_pose_of_a_photo_without_people_is_all_missing():
    empty = read_poses(FIXTURES / "coco_person_keypoints.json")["000000000139.jpg"]
    assert empty.shape == (18, 2)
    assert np.isnan(empty).all()


def test_read_people_orders_a_folder_naturally_and_numbers_a_list(tmp_path):
    for number in (10, 2, 1):
        save(tmp_path / f"walk{number}_keypoints.json", {"people": [spread(number)]})
    poses = read_poses(tmp_path)
    assert list(poses) == ["walk1.jpg", "walk2.jpg", "walk10.jpg"]
    assert [pose[1, 1] - pose[0, 1] for pose in poses.values()] == [1, 2, 10]
    frames = [{"people": [spread(n)], "canvas_width": 64, "canvas_height": 128} for n in (5, 6)]
    assert list(read_poses(save(tmp_path / "clip.json", frames))) == ["clip_0000.jpg", "clip_0001.jpg"]


def test_read_people_of_landmark_lists_drops_invisible_joints(tmp_path):
    """The Tasks API's list of lists. Landmarks outside the photo are missing; those without visibility are visible."""
    people = [marks(visibility=None), [*marks(x=1.01)[:1], *marks()[1:5], *marks(visibility=0.4)[5:]],
              marks(visibility=0.5)]  # fmt: skip
    file = save(tmp_path / "x.json", "\ufeff" + json.dumps(people))  # with the byte order mark that Windows writes
    (found,) = read_people(file, photos=Photos(size=(100, 50))).people.values()
    np.testing.assert_allclose(found[0].keypoints, np.broadcast_to([50, 25], (18, 2)))
    assert np.flatnonzero(~np.isnan(found[1].keypoints[:, 0])).tolist() == [JOINTS.index("left eye")]
    assert not np.isnan(found[2].keypoints).any()


def test_photos_finds_names_by_stem_and_upright_sizes(tmp_path):
    """Folders below count too. Pixels of a canvas become pixels of the photo."""
    folder = tmp_path / "photos"
    (folder / "day").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "day/turned.jpeg", exif=exif)
    photos = Photos(folder)
    assert photos.name("day_turned") == "day/turned.jpeg"
    assert photos.name("day_turned.png") == "day/turned.jpeg"
    assert photos.size("day/turned.jpeg") == (40, 20)  # 20 wide when it is upright
    frame = {"people": [body(5, 8, 1)], "canvas_width": 10, "canvas_height": 10}
    poses = read_poses(save(tmp_path / "day_turned.json", frame), photos=photos)
    assert poses["day/turned.jpeg"][0].tolist() == [32, 10]
    (folder / "day/turned.png").touch()
    with pytest.raises(UserError, match=r"day/turned.jpeg, day/turned.png for the pose of 'day_turned', expected one"):
        Photos(folder).name("day_turned")
    with pytest.raises(UserError, match="no photo for the pose of 'night'"):
        photos.name("night")
    with pytest.raises(UserError, match="no such folder"):
        Photos(tmp_path / "nowhere")
    (folder / "day/turned.jpeg").write_bytes(b"GIF")
    with pytest.raises(UserError, match="turned.jpeg: photo cannot be decoded"):
        photos.size("day/turned.jpeg")


@pytest.mark.parametrize("format_name", WRITTEN_FORMATS)
def test_write_poses_round_trip(format_name, some_poses, photos, tmp_path):
    """Every joint comes back. The neck of a format without one is the middle of the shoulders."""
    out = tmp_path / "out" / ("one.json" if format_name not in JSON_PER_PHOTO else "many")
    write_poses(out, some_poses, format_name, Photos(photos))
    poses = read_poses(out, photos=Photos(photos))
    assert sorted(poses) == sorted(some_poses)
    for name, pose in some_poses.items():
        expected = pose.copy()
        if format_name in NO_NECK:
            expected[1] = (pose[2] + pose[5]) / 2
        np.testing.assert_allclose(poses[name], expected, atol=0.002)


def test_write_poses_derives_or_misses_joints_that_patn_lacks(tmp_path):
    """BODY_25's middle hip is derived, its feet are 0, 0, 0; BlazePose's hands and feet are not visible."""
    write_poses(tmp_path / "a.json", {"a.jpg": PERSON}, "openpose-body25")
    (person,) = json.loads((tmp_path / "a.json").read_text())["people"]
    rows = np.reshape(person["pose_keypoints_2d"], (25, 3))
    assert rows[8].tolist() == [200, 300, 1]
    assert not rows[19:].any()
    assert np.flatnonzero(rows[:19, 2] == 0).tolist() == [7, 11]  # LWrist, RAnkle
    write_poses(tmp_path / "b.json", {"b.jpg": PERSON}, "mediapipe", Photos(size=SIZE))
    (landmarks,) = json.loads((tmp_path / "b.json").read_text())["pose_landmarks"]
    assert landmarks[12] == {"x": 0.375, "y": 0.236667, "z": 0, "visibility": 1}  # RIGHT_SHOULDER
    visible = [number for number, mark in enumerate(landmarks) if mark["visibility"]]
    assert visible == [0, 2, 5, 7, 8, 11, 12, 13, 14, 16, 23, 24, 25, 26, 27]


def test_write_poses_coco_boxes_enclose_the_joints(tmp_path):
    write_poses(tmp_path / "c.json", {"nobody.jpg": np.full((18, 2), np.nan), "a.jpg": PERSON}, "coco")
    content = json.loads((tmp_path / "c.json").read_text())
    (annotation,) = content["annotations"]
    assert content["images"][1] == {"id": annotation["image_id"], "file_name": "a.jpg"}
    assert annotation["bbox"] == [120, 69, 152, 469]
    assert annotation["area"] == 152 * 469
    assert annotation["num_keypoints"] == 15  # 17 without the left wrist and the right ankle
    assert annotation["keypoints"][15:18] == [250, 138, 2]  # left_shoulder is COCO's sixth
    assert content["categories"][0]["keypoints"][5] == "left_shoulder"


def coco(**changes: object) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 7, "image_id": 1, "keypoints": [5, 6, 2] * 17}],
        **changes,
    }


CANVAS = {"canvas_width": 10, "canvas_height": 20}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty; known formats are patn, dwpose, openpose"),
        ("from,to\na,b\n", "unknown format, begins with from,to a,b; known formats are patn"),
        ('{"people": [', "not JSON, or not all of it"),
        ("[" * 100000, "not JSON"),
        ({"bodies": []}, "no person in it"),
        ([], "no person in it"),
        ([1, 2], "unknown format"),
        ([[1.0, 2.0]] * 18, "unknown format, begins with [[1.0, 2.0], [1.0, 2.0], "),
        ([[0.1, 0.2, 0.0, 0.9]] * 33, "unknown format"),
        ([[None]], "unknown format, begins with [[None]]"),
        ("name:keypoints_y:keypoints_x\na.jpg:[1]:[2]\n", "expected a list of 18 numbers"),
        ({"people": []}, "no person in it"),
        ({"people": [body(0, 0, 0)]}, "no person in it"),
        ({"people": [body(9, -1, 0.5)]}, "no person in it"),
        ({"people": [{"pose_keypoints_2d": None}]}, "no person in it; 1 have no known joint"),
        ({"people": {}}, "no people, or one of another type than expected"),
        ({"people": [5]}, "no pose_keypoints_2d in 5"),
        ({"people": [{"face_keypoints_2d": []}]}, "no pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": "0 0 0"}]}, "one of another type than expected"),
        ({"people": [{"pose_keypoints_2d": [1] * 45}]}, "has 45 numbers, not 54 (18 joints) or 75 (BODY_25)"),
        ({"people": [body("9", 9, 1)]}, "'9' is not a number within ±1,000,000"),
        ({"people": [body(float("nan"), 9, 1)]}, "nan is not a number within ±1,000,000"),
        ({"people": [body(True, 9, 1)]}, "True is not a number within ±1,000,000"),
        ({"people": [body(0.2, 0.3, 1)]}, "the photo's size is needed"),
        ({"people": [body(-0.8, 0.3, 1)]}, "coordinates from -1 to 1"),
        ({"people": [body(5, 5, 1)], "canvas_width": -3, "canvas_height": 4}, "are not a size"),
        (
            {"people": [body(5, 5, 1)], "canvas_width": "3", "canvas_height": 4},
            "'3' is not a number within ±1,000,000",
        ),
        ([{"people": [], **CANVAS}, {"people": [], **CANVAS}], "no person in it"),
        (coco(images=5), "no images, or one of another type than expected"),
        (coco(images=[{"id": 1}]), "no file_name"),
        (coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]), "two images have one id"),
        (coco(images=[{"id": 1, "file_name": "../a.jpg"}]), "'../a.jpg' cannot be the name"),
        (coco(images=[{"id": 1, "file_name": "a:b.jpg"}]), "cannot be the name"),
        (coco(annotations=[{"image_id": 1, "bbox": [1, 2, 3, 4]}]), "no person in it; 1 have no known joint"),
        (coco(annotations=[{"id": 7, "image_id": 2, "keypoints": [5, 6, 2] * 17}]), "annotation 7: no image 2"),
        (coco(annotations=[{"id": 7, "image_id": 1, "keypoints": [5, 6, 2] * 14}]), "42 numbers in keypoints"),
        (coco(categories=[{"keypoints": ["left_eye", "right_eye", "nose"]}]), "joints other than COCO's 17"),
        (coco(categories=7), "no categories"),
        (marks()[:21], "not the 33 landmarks of BlazePose"),
        ({"landmarks": [5]}, "not the 33 landmarks"),
        ({"pose_landmarks": None}, "no person in it"),
        (marks(), "the photo's size is needed"),
        (marks(x=320), "joints beyond 2: fractions"),
        (marks(y="a"), "no y, or one of another type than expected"),
        (marks(visibility="a"), "'a' is not a number within ±1,000,000"),
    ],
)
def test_read_people_bad_file_is_one_clear_error(content, message, tmp_path):
    file = save(tmp_path / "bad.json", content)
    with pytest.raises(UserError) as caught:
        read_poses(file)
    assert message in str(caught.value)
    assert "bad" in str(caught.value)


def test_read_people_bad_path_or_format_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_poses(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="no .json files"):
        read_poses(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo.png: not a text file; known formats are patn"):
        read_poses(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"not COCO's images and annotations \(coco\)"):
        read_poses(save(tmp_path / "a.json", {"people": [body(5, 5, 1)]}), "coco")
    save(tmp_path / "a_keypoints.json", {"people": [body(5, 5, 1)]})
    with pytest.raises(UserError, match="a.jpg came before"):
        read_poses(tmp_path)


def test_write_poses_error_writes_nothing(some_poses, tmp_path):
    with pytest.raises(UserError, match="one file per photo, and there are 4; name a folder"):
        write_poses(tmp_path / "out.json", some_poses, "openpose")
    with pytest.raises(UserError, match=r"b.jpg: the photo's size is needed"):
        write_poses(tmp_path / "out", some_poses, "dwpose")
    with pytest.raises(UserError, match="two photos differ only in suffix or folder"):
        write_poses(tmp_path / "out", {"a/b.jpg": PERSON, "a_b.png": PERSON}, "openpose")
    with pytest.raises(UserError, match="'a:b.jpg' cannot be the name"):
        write_poses(tmp_path / "out.csv", {"a:b.jpg": PERSON}, "patn")
    assert not list(tmp_path.iterdir())
