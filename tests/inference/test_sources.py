"""Sources of poses: which photos of a folder, in which order and orientation (more in scripts/test_transfer.py)."""

from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from data.pairs import write_keypoints
from inference.photo_transfer import keypoint_csvs
from inference.sources import KeypointCsvs, open_poses, read_photo
from tests.helpers import smooth
from tests.inference.pose_files import PERSON, openpose_person, save
from tests.inference.test_framing import standing
from util.errors import UserError


def test_open_poses_folder_comes_in_natural_order(tmp_path):
    for name in ("frame10.png", "frame2.jpg", "frame1.PNG", "a.png", ".b.png"):
        Image.new("RGB", (10, 8)).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no photo")
    source = open_poses(str(tmp_path), KeypointCsvs())
    assert [name for name, _ in source.entries] == ["a.png", "frame1.PNG", "frame2.jpg", "frame10.png"]
    assert (source.count, source.needs_estimator, source.fps) == (4, True, None)
    assert [name for name, _ in open_poses(str(tmp_path), KeypointCsvs(), every=3).entries] == ["a.png", "frame10.png"]


def test_open_poses_folder_includes_linked_folders_and_counts_other_files(tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "poses").mkdir()
    smooth(10, 8).save(tmp_path / "disk/a.webp")
    (tmp_path / "disk/notes.txt").write_text("no photo")
    (tmp_path / "poses/linked").symlink_to(tmp_path / "disk")
    ((name, photo),) = open_poses(str(tmp_path / "poses"), KeypointCsvs()).entries
    assert (name, photo().size) == ("linked/a.webp", (10, 8))
    assert "left out because they are not photos (1): linked/notes.txt" in capsys.readouterr().err


def test_open_poses_folder_with_both_ignores_keypoint_files_with_a_note(tmp_path, capsys):
    smooth(10, 8).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("{}")
    assert [name for name, _ in open_poses(str(tmp_path), KeypointCsvs()).entries] == ["a.png"]
    assert capsys.readouterr().err == f"note: {tmp_path}: it has photos, so its keypoint files are not read\n"


def test_open_poses_of_a_heic_photo_says_what_to_do(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"a.heic: neither a photo.*HEIC, as iPhones write it: convert it to JPEG"):
        open_poses(str(tmp_path / "a.heic"), KeypointCsvs())


def test_open_poses_decodes_photos_one_at_a_time(tmp_path):
    for number in range(2):
        smooth(10, 8).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no photo")
    (_, first), (_, second) = open_poses(str(tmp_path), KeypointCsvs()).entries
    assert first().size == (10, 8)
    with pytest.raises(UserError, match=r"1\.png"):
        second()


def test_read_photo_comes_upright_and_rgb(tmp_path):
    upright = smooth(48, 36)
    exif = Image.Exif()
    exif[0x112] = 6  # turn by 90 degrees clockwise to show
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", exif=exif, quality=98, subsampling=0)
    upright.convert("L").save(tmp_path / "c.png")
    png, jpeg, gray = (read_photo(tmp_path / name) for name in ("a.png", "b.jpg", "c.png"))
    np.testing.assert_array_equal(np.asarray(png), np.asarray(upright))
    assert np.abs(np.asarray(jpeg, float) - np.asarray(upright, float)).mean() < 3
    assert gray.mode == "RGB"


def test_read_photo_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: no such photo"):
        read_photo(tmp_path / "gone.png")
    (tmp_path / "cafe\u0301.png").touch()
    with pytest.raises(UserError, match=r"caf\u00e9.png: no such photo \(it is there in another Unicode form, NFD"):
        read_photo(tmp_path / "caf\u00e9.png")


def test_open_poses_counts_people_without_joints(tmp_path, capsys):
    people = [openpose_person(PERSON, 0.9), {"pose_keypoints_2d": []}, openpose_person(PERSON, 0)]
    ((name, found),) = open_poses(str(save(tmp_path / "a.json", {"people": people})), KeypointCsvs()).entries
    assert (name, len(found)) == ("a.jpg", 1)
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'a.json'}: people left out, because no joint of them is known (only a box, a face or a "
        "hand): 2\n"
    )


def test_poses_of_the_data_sets_csv_come_in_pixels_of_the_stored_size(tmp_path):
    opt = Namespace(dataset_mode="fashion512", dataroot=tmp_path, keypoints_csv=None)
    file = tmp_path / "fasion-resize-annotation-test.csv"
    write_keypoints(file, {"a.jpg": standing().round()})
    csvs = keypoint_csvs(opt)
    for text in ("csv:a.jpg", str(file)):
        source = open_poses(text, csvs)
        ((_, (person,)),) = source.entries
        np.testing.assert_array_equal(person.keypoints, 2 * standing().round())
        assert source.in_stored_pixels
    opt.keypoints_csv = file  # a file of the user's own is in pixels of the stored size
    ((_, (person,)),) = open_poses("csv:a.jpg", keypoint_csvs(opt)).entries
    np.testing.assert_array_equal(person.keypoints, standing().round())
