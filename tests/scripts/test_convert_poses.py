"""scripts/convert_poses.py: what it writes, prints and refuses."""

import numpy as np

from data.pairs import read_keypoints, write_keypoints
from scripts import convert_poses
from tests.inference.pose_files import FIXTURES, PERSON, PHANTOM, openpose_person, random_poses, save, write_photos


def test_convert_poses_there_and_back(call, tmp_path):
    some_poses = random_poses()
    photos = write_photos(tmp_path / "photos", some_poses)
    write_keypoints(tmp_path / "in.csv", some_poses)
    done = call(convert_poses, tmp_path / "in.csv", tmp_path / "poses", "--to=openpose-body25")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"4 photos in {tmp_path / 'in.csv'} (patn)",
        "1 of them without a person, written with all joints missing:",
        "  -1_empty.jpg",
        f"written to {tmp_path / 'poses'} (openpose-body25)",
    ]
    assert sorted(file.name for file in (tmp_path / "poses").iterdir())[1] == "a 10_keypoints.json"
    done = call(convert_poses, tmp_path / "poses", tmp_path / "out.csv", "--photos", photos)
    assert (done.returncode, done.stderr) == (0, "")
    back = read_keypoints(tmp_path / "out.csv")
    for name, pose in some_poses.items():
        np.testing.assert_allclose(back[name], pose, atol=0.001)


def test_convert_poses_says_what_it_assumes(call, tmp_path):
    done = call(convert_poses, FIXTURES / "openpose", tmp_path / "out.csv", "--people=first")
    assert done.returncode == 0
    assert "assumed to end in .jpg" in done.stdout
    assert "1 of them with several people, of whom the first was taken:\n  body25_000000000000.jpg: 2" in done.stdout
    done = call(convert_poses, FIXTURES / "mediapipe_landmarks.json", tmp_path / "m.csv", "--size", 400, 600)
    assert done.returncode == 0
    np.testing.assert_allclose(read_keypoints(tmp_path / "m.csv")["mediapipe_landmarks.jpg"], PERSON, atol=0.01)


def test_convert_poses_refuses_to_overwrite_or_guess(call, tmp_path):
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


def test_convert_poses_takes_the_person_beside_a_phantom_and_says_so(call, tmp_path):
    people = [openpose_person(PHANTOM, 0.12), openpose_person(PERSON, 0.9), {"pose_keypoints_2d": []}]
    source = save(tmp_path / "ghost.json", {"people": people})
    done = call(convert_poses, source, tmp_path / "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(read_keypoints(tmp_path / "out.csv")["ghost.jpg"], PERSON)
    assert done.stdout.splitlines()[2:5] == [
        "1 of them with several people, of whom the most prominent was taken:",
        "  ghost.jpg: 2 people, taken: 16 joints of confidence 0.90, 493 pixels in extent around x = 198, y = 218; "
        "next: 3 joints of confidence 0.12, 2393 pixels in extent around x = 973, y = 647",
        "people left out, because no joint of them is known (only a box, a face or a hand): 1",
    ]
    assert call(convert_poses, source, tmp_path / "box.csv", "--people=largest").returncode == 0
    np.testing.assert_array_equal(read_keypoints(tmp_path / "box.csv")["ghost.jpg"], PHANTOM)


def test_convert_poses_writes_names_that_windows_allows(call, tmp_path):
    """Written and read back, also where the photo is named like a device."""
    poses = random_poses()
    names = ["con.png", "a?.png", "nul.b.png"]
    photos = write_photos(tmp_path / "photos", names)
    write_keypoints(tmp_path / "in.csv", dict(zip(names, poses.values())))
    assert call(convert_poses, tmp_path / "in.csv", tmp_path / "poses", "--to=dwpose", "--photos", photos).stderr == ""
    assert sorted(file.name for file in (tmp_path / "poses").iterdir()) == ["a_.json", "con_.json", "nul_.b.json"]
    assert call(convert_poses, tmp_path / "poses", tmp_path / "out.csv", "--photos", photos).returncode == 0
    back = read_keypoints(tmp_path / "out.csv")
    for name, pose in zip(names, poses.values()):
        np.testing.assert_allclose(back[name], pose, atol=0.001)


def test_convert_poses_refuses_names_that_file_systems_do_not_allow(call, tmp_path):
    """Before the first file is written."""
    poses = random_poses()
    longest = "a" * (255 - len("_keypoints.json")) + ".jpg"
    write_keypoints(tmp_path / "in.csv", {"short.jpg": poses["b.jpg"], longest: poses["b.jpg"]})
    assert call(convert_poses, tmp_path / "in.csv", tmp_path / "fits", "--to=openpose").returncode == 0
    write_keypoints(tmp_path / "in.csv", {"short.jpg": poses["b.jpg"], f"a{longest}": poses["b.jpg"]})
    done = call(convert_poses, tmp_path / "in.csv", tmp_path / "poses", "--to=openpose")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "1 file names would be longer than 255 bytes" in done.stderr
    assert not (tmp_path / "poses").exists()
