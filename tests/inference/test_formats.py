"""Pose files of other programs: real layouts, round trips, everything that can be wrong, and the command.

All files of fixtures/ show one person facing the viewer in a photo 400 wide and 600 high, in each program's
own layout and order, with two joints missing: the left wrist and the right ankle.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.keypoints import JOINTS
from data.pairs import read_keypoints, write_keypoints
from inference.formats import FORMATS, Photos, read_people, read_poses, write_poses
from scripts import convert_poses
from util.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
SIZE = (600, 400)
PLACES = {  # (x, y)
    "nose": (200, 80), "neck": (200, 140), "right shoulder": (150, 142), "right elbow": (130, 220),
    "right wrist": (120, 290), "left shoulder": (250, 138), "left elbow": (272, 218), "right hip": (170, 302),
    "right knee": (165, 420), "left hip": (230, 298), "left knee": (236, 418), "left ankle": (242, 538),
    "right eye": (190, 70), "left eye": (210, 69), "right ear": (175, 76), "left ear": (226, 75),
}  # fmt: skip
PERSON = np.array([PLACES.get(name, (np.nan, np.nan))[::-1] for name in JOINTS], np.float32)
FILES = {
    "openpose/body25_000000000000_keypoints.json": ("openpose", "body25_000000000000.jpg"),
    "openpose/coco18_000000000000_keypoints.json": ("openpose", "coco18_000000000000.jpg"),
    "controlnet_fractions.json": ("dwpose", "controlnet_fractions.jpg"),
    "dwpose_pixels.json": ("dwpose", "dwpose_pixels.jpg"),
    "coco_person_keypoints.json": ("coco", "000000425226.jpg"),
    "mediapipe_landmarks.json": ("mediapipe", "mediapipe_landmarks.jpg"),
    "mediapipe_results.json": ("mediapipe", "mediapipe_results.jpg"),
}
ONE_A_PHOTO = ["openpose", "openpose-body25", "dwpose", "mediapipe"]
NO_NECK = ["coco", "mediapipe"]


@pytest.fixture
def some_poses() -> dict[str, np.ndarray]:
    """Joints to a thousandth of a pixel, some missing, nobody in the last; inside 64 x 128."""
    random = np.random.RandomState(0)
    poses = {}
    for name in ("b.jpg", "a 10.png", "a 9.png", "-1_empty.jpg"):
        poses[name] = (random.rand(18, 2) * (127, 63)).round(3).astype(np.float32)
        poses[name][random.rand(18) < 0.2] = np.nan
    poses["-1_empty.jpg"][:] = np.nan
    return poses


@pytest.fixture
def photos(tmp_path, some_poses) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in some_poses:
        Image.new("RGB", (64, 128)).save(folder / name)
    return folder


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def body(*numbers: float) -> dict:
    """OpenPose's person of 18 joints that are all at (x, y), with its confidence."""
    return {"pose_keypoints_2d": [*numbers] * 18}


def spread(size: float) -> dict:
    """A person of that extent in x."""
    return {"pose_keypoints_2d": [10, 10, 0.5, 10 + size, 10, 0.5, *[0] * 48]}


def marks(**changes: object) -> list[dict]:
    return [{"x": 0.5, "y": 0.5, "z": 0.0, "visibility": 0.9, **changes} for _ in range(33)]


@pytest.mark.parametrize(("file", "expected"), FILES.items())
def test_real_layouts(file, expected):
    """The format is told by the content, each joint found by its place, the largest of two people taken."""
    found = read_people(FIXTURES / file, photos=Photos(size=SIZE))
    assert found.format == expected[0]
    poses = read_poses(FIXTURES / file, photos=Photos(size=SIZE))
    pose = poses[expected[1]]
    assert pose.dtype == np.float32
    np.testing.assert_allclose(pose, PERSON, atol=0.01)


def test_right_is_the_persons_own():
    """Whoever faces the viewer has the right side on the left of the photo; what PLACES says must be true of people."""
    pairs = [(JOINTS.index(name), JOINTS.index(name.replace("right", "left"))) for name in PLACES if "right" in name]
    for right, left in pairs:
        assert not PERSON[right, 1] >= PERSON[left, 1]
    down = [
        PERSON[JOINTS.index(name), 0] for name in ("left eye", "nose", "neck", "left hip", "left knee", "left ankle")
    ]
    assert down == sorted(down)


@pytest.mark.parametrize("file", ["controlnet_fractions.json", "dwpose_pixels.json", "mediapipe_results.json"])
def test_declared_sizes(file):
    """Without a photo, fractions are of the size that the file names, and pixels stay those of its canvas."""
    scale = 0.5 if file == "dwpose_pixels.json" else 1
    (pose,) = read_poses(FIXTURES / file).values()
    np.testing.assert_allclose(pose, PERSON * scale, atol=0.01)


def test_several_people():
    file = FIXTURES / "openpose/body25_000000000000_keypoints.json"
    (people,) = read_people(file).people.values()
    assert len(people) == 2
    (first,) = read_poses(file, on_many="first").values()
    np.testing.assert_allclose(first[0], (50, 70))
    with pytest.raises(UserError, match="body25_000000000000.jpg: 2 people"):
        read_poses(file, on_many="error")
    assert [len(p) for p in read_people(FIXTURES / "coco_person_keypoints.json").people.values()] == [2, 0]


def test_a_photo_without_anybody_is_kept():
    empty = read_poses(FIXTURES / "coco_person_keypoints.json")["000000000139.jpg"]
    assert empty.shape == (18, 2)
    assert np.isnan(empty).all()


def test_frames_of_a_folder_and_of_a_list(tmp_path):
    """2 before 10; a list's photos are numbered."""
    for number in (10, 2, 1):
        save(tmp_path / f"walk{number}_keypoints.json", {"people": [spread(number)]})
    poses = read_poses(tmp_path)
    assert list(poses) == ["walk1.jpg", "walk2.jpg", "walk10.jpg"]
    assert [pose[1, 1] - pose[0, 1] for pose in poses.values()] == [1, 2, 10]
    frames = [{"people": [spread(n)], "canvas_width": 64, "canvas_height": 128} for n in (5, 6)]
    assert list(read_poses(save(tmp_path / "clip.json", frames))) == ["clip_0000.jpg", "clip_0001.jpg"]


def test_landmarks_of_several_people(tmp_path):
    """The Tasks API's list of lists; what lies outside the photo or is not seen is missing, and None is seen."""
    people = [marks(visibility=None), [*marks(x=1.01)[:1], *marks()[1:5], *marks(visibility=0.4)[5:]]]
    file = save(tmp_path / "x.json", "\ufeff" + json.dumps(people))  # Windows' mark is no part of it
    (found,) = read_people(file, photos=Photos(size=(100, 50))).people.values()
    np.testing.assert_allclose(found[0], np.broadcast_to([50, 25], (18, 2)))
    assert np.flatnonzero(~np.isnan(found[1][:, 0])).tolist() == [JOINTS.index("left eye")]


def test_names_and_sizes_of_photos(tmp_path):
    """By stem, in folders too; sizes as photos are shown; pixels of a canvas become those of the photo."""
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
    with pytest.raises(UserError, match="size cannot be read"):
        photos.size("day/turned.jpeg")


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(format, some_poses, photos, tmp_path):
    """Every joint comes back, but the neck where a format has none: then it is the middle of the shoulders."""
    out = tmp_path / "out" / ("one.json" if format not in ONE_A_PHOTO else "many")
    write_poses(out, some_poses, format, Photos(photos))
    poses = read_poses(out, photos=Photos(photos))
    assert sorted(poses) == sorted(some_poses)
    for name, pose in some_poses.items():
        expected = pose.copy()
        if format in NO_NECK:
            expected[1] = (pose[2] + pose[5]) / 2
        np.testing.assert_allclose(poses[name], expected, atol=0.002)


def test_what_is_written_for_joints_that_patn_lacks(tmp_path):
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
    seen = [number for number, mark in enumerate(landmarks) if mark["visibility"]]
    assert seen == [0, 2, 5, 7, 8, 11, 12, 13, 14, 16, 23, 24, 25, 26, 27]


def test_coco_boxes(tmp_path):
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
        ("", "unknown layout; known are patn (PATN's keypoints csv), dwpose"),
        ("from,to\na,b\n", "unknown layout"),
        ('{"people": [', "not JSON, or not all of it"),
        ("[" * 100000, "not JSON"),
        ({"bodies": []}, "unknown layout"),
        ([], "unknown layout"),
        ([1, 2], "unknown layout"),
        ("name:keypoints_y:keypoints_x\na.jpg:[1]:[2]\n", "expected a list of 18 numbers"),
        ({"people": []}, "nobody in it"),
        ({"people": [body(0, 0, 0)]}, "nobody in it"),
        ({"people": [body(9, -1, 0.5)]}, "nobody in it"),
        ({"people": [{"pose_keypoints_2d": None}]}, "nobody in it"),
        ({"people": {}}, "no people, or not a proper one"),
        ({"people": [5]}, "no pose_keypoints_2d in 5"),
        ({"people": [{"face_keypoints_2d": []}]}, "no pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": "0 0 0"}]}, "not a proper one"),
        ({"people": [{"pose_keypoints_2d": [1] * 45}]}, "has 45 numbers, not 54 (18 joints) or 75 (BODY_25)"),
        ({"people": [body("9", 9, 1)]}, "9 is not a finite number"),
        ({"people": [body(float("nan"), 9, 1)]}, "nan is not a finite number"),
        ({"people": [body(True, 9, 1)]}, "True is not a finite number"),
        ({"people": [body(0.2, 0.3, 1)]}, "the photo's size is needed"),
        ({"people": [body(-0.8, 0.3, 1)]}, "coordinates from -1 to 1"),
        ({"people": [body(5, 5, 1)], "canvas_width": -3, "canvas_height": 4}, "are no size"),
        ({"people": [body(5, 5, 1)], "canvas_width": "3", "canvas_height": 4}, "3 is not a finite number"),
        ([{"people": [], **CANVAS}, {"people": [], **CANVAS}], "nobody in it"),
        (coco(images=5), "no images, or not a proper one"),
        (coco(images=[{"id": 1}]), "no file_name"),
        (coco(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]), "two images have one id"),
        (coco(images=[{"id": 1, "file_name": "../a.jpg"}]), "'../a.jpg' cannot be the name"),
        (coco(images=[{"id": 1, "file_name": "a:b.jpg"}]), "cannot be the name"),
        (coco(annotations=[{"image_id": 1, "bbox": [1, 2, 3, 4]}]), "no keypoints"),
        (coco(annotations=[{"id": 7, "image_id": 2, "keypoints": [5, 6, 2] * 17}]), "annotation 7: no image 2"),
        (coco(annotations=[{"id": 7, "image_id": 1, "keypoints": [5, 6, 2] * 14}]), "42 numbers in keypoints"),
        (coco(categories=[{"keypoints": ["left_eye", "right_eye", "nose"]}]), "joints other than COCO's 17"),
        (coco(categories=7), "no categories"),
        (marks()[:21], "not the 33 landmarks of BlazePose"),
        ({"landmarks": [5]}, "not the 33 landmarks"),
        ({"pose_landmarks": None}, "nobody in it"),
        (marks(), "the photo's size is needed"),
        (marks(x=320), "landmarks beyond 2"),
        (marks(y="a"), "no y, or not a proper one"),
        (marks(visibility="a"), "a is not a finite number"),
    ],
)
def test_bad_files(content, message, tmp_path):
    file = save(tmp_path / "bad.json", content)
    with pytest.raises(UserError) as caught:
        read_poses(file)
    assert message in str(caught.value)
    assert "bad" in str(caught.value)


def test_bad_paths(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_poses(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="no .json files"):
        read_poses(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"photo.png: not a text file; known are patn"):
        read_poses(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"not COCO's images and annotations \(coco\)"):
        read_poses(save(tmp_path / "a.json", {"people": [body(5, 5, 1)]}), "coco")
    save(tmp_path / "a_keypoints.json", {"people": [body(5, 5, 1)]})
    with pytest.raises(UserError, match="a.jpg came before"):
        read_poses(tmp_path)


def test_bad_writing(some_poses, tmp_path):
    """Nothing is written before everything can be."""
    with pytest.raises(UserError, match="one file a photo, and there are 4; name a folder"):
        write_poses(tmp_path / "out.json", some_poses, "openpose")
    with pytest.raises(UserError, match=r"b.jpg: the photo's size is needed"):
        write_poses(tmp_path / "out", some_poses, "dwpose")
    with pytest.raises(UserError, match="two photos have one name but for their endings"):
        write_poses(tmp_path / "out", {"a/b.jpg": PERSON, "a_b.png": PERSON}, "openpose")
    with pytest.raises(UserError, match="'a:b.jpg' cannot be the name"):
        write_poses(tmp_path / "out.csv", {"a:b.jpg": PERSON}, "patn")
    assert not list(tmp_path.iterdir())


def test_command(some_poses, photos, call, tmp_path):
    """There and back; what was found is said."""
    write_keypoints(tmp_path / "in.csv", some_poses)
    done = call(convert_poses, tmp_path / "in.csv", tmp_path / "poses", "--to=openpose-body25")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"4 photos in {tmp_path / 'in.csv'} (patn)",
        "1 of them without anybody, written as such:",
        "  -1_empty.jpg",
        f"written to {tmp_path / 'poses'} (openpose-body25)",
    ]
    assert sorted(file.name for file in (tmp_path / "poses").iterdir())[1] == "a 10_keypoints.json"
    done = call(convert_poses, tmp_path / "poses", tmp_path / "out.csv", "--photos", photos)
    assert (done.returncode, done.stderr) == (0, "")
    back = read_keypoints(tmp_path / "out.csv")
    for name, pose in some_poses.items():
        np.testing.assert_allclose(back[name], pose, atol=0.001)


def test_command_says_what_it_supposes(call, tmp_path):
    done = call(convert_poses, FIXTURES / "openpose", tmp_path / "out.csv", "--people=first")
    assert done.returncode == 0
    assert "supposed to end in .jpg" in done.stdout
    assert "1 of them with several people, of whom the first was taken:\n  body25_000000000000.jpg: 2" in done.stdout
    done = call(convert_poses, FIXTURES / "mediapipe_landmarks.json", tmp_path / "m.csv", "--size", 400, 600)
    assert done.returncode == 0
    np.testing.assert_allclose(read_keypoints(tmp_path / "m.csv")["mediapipe_landmarks.jpg"], PERSON, atol=0.01)


def test_command_refuses(call, tmp_path):
    source, out = FIXTURES / "coco_person_keypoints.json", save(tmp_path / "out.csv", "mine")
    done = call(convert_poses, source, out)
    assert (done.returncode, "--overwrite replaces" in done.stderr) == (2, True)
    assert out.read_text() == "mine"
    assert call(convert_poses, source, tmp_path, "--to=openpose").returncode == 2  # a folder that holds something
    assert call(convert_poses, source, out, "--overwrite").returncode == 0
    assert len(read_keypoints(out)) == 2
    done = call(convert_poses, source, tmp_path / "x.json")
    assert (done.returncode, "--to is needed" in done.stderr) == (2, True)
    done = call(convert_poses, source, tmp_path / "x.csv", "--people=error")
    assert (done.returncode, "000000425226.jpg: 2 people" in done.stderr) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.csv"]
