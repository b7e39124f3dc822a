"""Names and sizes of the photos of keypoint files."""

import pytest
from PIL import Image

from inference.photos import Photos, fits_in_csv
from util.errors import UserError


@pytest.fixture
def photos(tmp_path) -> Photos:
    (tmp_path / "day").mkdir()
    for name in ("day/a.jpg", "b.jpg", "7.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return Photos(tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("images\\day\\a.jpg", "day/a.jpg"),
        ("C:\\data\\day\\a.jpg", "day/a.jpg"),
        ("/home/me/day/a.jpg", "day/a.jpg"),
        ("../images/b.jpg", "b.jpg"),
        ("images/c.jpg", "images/c.jpg"),  # not in the folder
        ("/home/me/c.jpg", "c.jpg"),
        ("day_a", "day/a.jpg"),
        ("a:b.jpg", "a:b.jpg"),
        ("", ""),
    ],
)
def test_name_of_path_finds_the_photo_below_the_folder(photos, path, expected):
    assert photos.name_of_path(path) == expected


def test_name_with_a_suffix_is_that_photo_also_beside_another_format(photos):
    Image.new("L", (8, 8)).save(photos.folder / "b.png")
    photos = Photos(photos.folder)
    assert photos.name("b.png") == "b.png"
    with pytest.raises(UserError, match=r"b\.jpg, b\.png for the pose of 'b', expected one"):
        photos.name("b")


def test_name_of_path_without_a_folder_keeps_relative_paths():
    photos = Photos()
    assert photos.name_of_path("images\\a.jpg") == "images/a.jpg"
    assert photos.name_of_path("D:\\images\\a.jpg") == "a.jpg"
    assert photos.name_of_path("/a.jpg") == "a.jpg"
    assert not photos.has_assumed_names
    assert photos.name_of_path("a") == "a.jpg"
    assert photos.has_assumed_names


def test_name_of_id_is_cocos_name_or_a_shorter_one_that_exists(photos):
    assert photos.name_of_id(7) == "7.jpg"
    assert Photos().name_of_id(397133) == "000000397133.jpg"


def test_size_of_a_missing_photo_names_another_unicode_form(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "cafe\u0301.jpg")
    with pytest.raises(UserError, match=r"caf\u00e9.jpg: no such photo \(it is there in another Unicode form, NFD"):
        Photos(tmp_path).size("caf\u00e9.jpg")


@pytest.mark.parametrize(
    ("name", "fits"),
    [("a b.jpg", True), ("é\u202f人.jpg", True), ("a:b", False), ('a"', False), (" a", False), ("a\n", False),
     ("a\x00", False), ("\ud800.jpg", False)],
)  # fmt: skip
def test_fits_in_csv_rejects_what_a_csv_changes(name, fits):
    assert fits_in_csv(name) == fits
