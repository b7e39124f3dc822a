"""scripts/extract_poses.py from end to end, with an estimator that reads its answer from the photo's color."""

import json
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.pairs import read_keypoints
from inference import estimators, extraction
from inference.estimators import Estimator
from inference.people import Person
from scripts import extract_poses
from util.errors import UserError
from util.image import DECODING

SIZE = (64, 32)
NAMES = ["a.png", "b/c.png", "b/d.png", "e.PNG", "f.png", "g.png"]


class Stub(Estimator):
    """The red of a photo tells how many people there are, its green where they are."""

    default_weights = "own"
    uses_gpu = False
    seen: list[int]  # greens of the photos searched
    stop_at = None  # the green of a photo at which to act like Ctrl-C

    def __init__(self, weights: str, device: torch.device) -> None:
        if weights == "missing":
            raise UserError("--estimator_weights missing: not found")
        self.shift = {"own": 0.0, "other": 0.5}.get(weights, 0.25)

    def find_people(self, photo: Image.Image) -> list[Person]:
        red, green, _ = photo.getpixel((0, 0))
        if green == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(green)
        return [Person(joints_of(green) + np.float32(self.shift), 0.8)] * red


def joints_of(green: int) -> np.ndarray:
    joints = np.stack([np.arange(18) * 3, np.arange(18)], 1).astype(np.float32) + green / 8
    joints[green % 18] = np.nan
    return joints


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder of six photos: the second without anybody, the third with two people."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        people = {1: 0, 2: 2}.get(number, 1)
        Image.new("RGB", SIZE[::-1], (people, number * 8, 0)).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    monkeypatch.setitem(estimators.ESTIMATORS, "stub", Stub)
    monkeypatch.setattr(Stub, "seen", [], raising=False)
    monkeypatch.setattr(Stub, "stop_at", None)
    extraction.load_once.cache_clear()
    return folder


@pytest.fixture
def extract(call, photos, tmp_path):
    """extract(flags...): the command on the photos, into poses.csv, in this process."""

    def run(*flags: object) -> SimpleNamespace:
        return call(extract_poses, photos, tmp_path / "poses.csv", "--estimator=stub", "--workers=1", *flags)

    return run


def check_csv(path: Path, names: list[str] = NAMES, shift: float = 0.0) -> None:
    poses = read_keypoints(path)
    assert list(poses) == names
    for name, pose in poses.items():
        nobody = name == "b/c.png"
        expected = np.full((18, 2), np.nan) if nobody else joints_of(NAMES.index(name) * 8) + shift
        np.testing.assert_array_equal(pose, expected)


def test_extract_poses_folder_becomes_a_csv(extract, tmp_path):
    done = extract()
    skipped = "left out because they are not photos (1): notes.txt"
    assert (done.returncode, done.stderr) == (0, f"note: {tmp_path / 'photos'}: {skipped}\n")
    check_csv(tmp_path / "poses.csv")
    who = "17 joints of confidence 0.80, 54 pixels in extent around x = 10, y = 26"
    assert done.stdout.splitlines()[1:] == [
        "photos with several people, of whom the most prominent was taken: 1",
        f"  b/d.png: 2 people, taken: {who}; next: {who}",
        "photos without a person, whose joints are all -1: 1",
        "  b/c.png",
        f"6 rows written to {tmp_path / 'poses.csv'}",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "poses.csv"]


def test_extract_poses_writes_whole_numbers_like_the_published_csv(extract, tmp_path):
    extract()
    row = (tmp_path / "poses.csv").read_text().splitlines()[1]
    assert row.startswith("a.png:[-1, 3, 6, 9, 12, ")


def test_extract_poses_existing_csv_needs_overwrite(extract, tmp_path):
    (tmp_path / "poses.csv").write_text("mine")
    done = extract()
    assert done.returncode == 2
    assert "poses.csv is there already; --overwrite" in done.stderr
    assert (tmp_path / "poses.csv").read_text() == "mine"
    assert extract("--overwrite").returncode == 0
    check_csv(tmp_path / "poses.csv")


def stop(extract, tmp_path: Path) -> Path:
    """Stop at the fourth photo; the file of the three rows."""
    Stub.stop_at = 24
    assert extract().returncode == 130
    assert not (tmp_path / "poses.csv").exists()
    Stub.stop_at = None
    Stub.seen.clear()
    return tmp_path / "poses.csv.rows"


def test_extract_poses_resumes_a_stopped_run(extract, tmp_path):
    rows = stop(extract, tmp_path)
    assert [json.loads(line)[0] for line in rows.read_text().splitlines()[1:]] == NAMES[:3]
    done = extract()
    assert done.returncode == 0
    assert done.stdout.startswith("resuming: 3 of 6 photos are done\n")
    assert Stub.seen == [24, 32, 40]
    check_csv(tmp_path / "poses.csv")
    assert not rows.exists()


def test_extract_poses_repeats_a_row_that_was_cut_off(extract, tmp_path):
    rows = stop(extract, tmp_path)
    rows.write_bytes(rows.read_bytes()[:-9])
    Stub.stop_at = 32
    assert extract().returncode == 130
    assert Stub.seen == [16, 24]
    Stub.stop_at = None
    assert extract().returncode == 0
    check_csv(tmp_path / "poses.csv")


def test_extract_poses_writes_a_row_before_the_next_photo(extract, tmp_path, monkeypatch):
    lines, find_people = [], Stub.find_people

    def count_lines(stub: Stub, photo: Image.Image) -> list[Person]:
        lines.append((tmp_path / "poses.csv.rows").read_bytes().count(b"\n"))
        return find_people(stub, photo)

    monkeypatch.setattr(Stub, "find_people", count_lines)
    extract()
    assert lines == [1, 2, 3, 4, 5, 6]


def test_extract_poses_other_settings_need_overwrite(extract, tmp_path):
    rows = stop(extract, tmp_path)
    before = rows.read_bytes()
    done = extract("--estimator_weights=other")
    assert done.returncode == 2
    assert "other settings (weights own, now other)" in done.stderr
    assert rows.read_bytes() == before
    assert extract("--estimator_weights=other", "--overwrite").returncode == 0
    assert len(Stub.seen) == 6
    check_csv(tmp_path / "poses.csv", shift=0.5)


def test_extract_poses_of_an_older_decoding_needs_overwrite(extract, tmp_path):
    """Older versions ignored EXIF's orientation, and recorded no rule."""
    rows = stop(extract, tmp_path)
    settings, *lines = rows.read_text().splitlines(keepends=True)
    older = json.loads(settings)
    assert older.pop("decoding") == DECODING
    rows.write_text("".join([json.dumps(older) + "\n", *lines]))
    done = extract()
    assert (done.returncode, Stub.seen) == (2, [])
    assert f"other settings (decoding not recorded, now {DECODING})" in done.stderr
    assert extract("--overwrite").returncode == 0
    assert len(Stub.seen) == 6


def test_extract_poses_overwrite_resumes_same_settings(extract, tmp_path):
    stop(extract, tmp_path)
    assert extract("--overwrite").returncode == 0
    assert Stub.seen == [24, 32, 40]


def test_extract_poses_identifies_weights_by_content(extract, tmp_path):
    weights = tmp_path / "net.pt"
    weights.write_text("one")
    Stub.stop_at = 24
    assert extract(f"--estimator_weights={weights}").returncode == 130
    Stub.stop_at = None
    weights.write_text("two")
    assert "other settings (weights " in extract(f"--estimator_weights={weights}").stderr
    weights.write_text("one")
    assert extract(f"--estimator_weights={weights}").returncode == 0
    check_csv(tmp_path / "poses.csv", shift=0.25)


@pytest.mark.parametrize(
    "damage",
    [
        b"no json\n",
        b"[]\n",
        b"5\n",
        b"[]\n[]\n",
        b'{"folder": 1}\n',
        b"\xff\n",
        b"{}\n[1, 2, [3]]\n",
        b"[" * 100000 + b"\n",
        b'{"folder": 1}\n[[], "many", null, 5]\n',
    ],
)
def test_extract_poses_damaged_rows_need_overwrite(extract, tmp_path, damage):
    (tmp_path / "poses.csv.rows").write_bytes(damage)
    done = extract()
    assert done.returncode == 2
    assert "not the rows of a stopped run" in done.stderr
    assert "--overwrite discards it" in done.stderr
    assert (tmp_path / "poses.csv.rows").read_bytes() == damage
    assert extract("--overwrite").returncode == 0
    check_csv(tmp_path / "poses.csv")


def test_extract_poses_lists_undecodable_photos_and_keeps_the_rest(extract, photos, tmp_path):
    (photos / "a.png").write_text("no photo")
    (photos / "f.png").write_bytes((photos / "f.png").read_bytes()[:60])
    done = extract()
    assert done.returncode == 2
    assert "2 photos cannot be used" in done.stderr
    assert f"{photos / 'a.png'}: photo cannot be decoded" in done.stderr
    assert f"{photos / 'f.png'}: photo cannot be decoded" in done.stderr
    assert not (tmp_path / "poses.csv").exists()
    (photos / "a.png").unlink()
    (photos / "f.png").unlink()
    Stub.seen.clear()
    assert extract().returncode == 0
    assert Stub.seen == []
    check_csv(tmp_path / "poses.csv", ["b/c.png", "b/d.png", "e.PNG", "g.png"])


def test_extract_poses_missing_or_empty_folder_raises(call, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "no such folder"), ("empty", "no photos")):
        done = call(extract_poses, tmp_path / folder, tmp_path / "poses.csv", "--estimator=stub")
        assert done.returncode == 2
        assert f"{folder}: {message}" in done.stderr


@pytest.mark.parametrize("name", ["a:b.png", 'a"b.png', " a.png", "a\nb.png"])
def test_extract_poses_rejects_names_that_a_csv_cannot_hold(extract, photos, tmp_path, name):
    (photos / "a.png").rename(photos / name)
    done = extract()
    assert done.returncode == 2
    assert f"rename these photos:\n  {name!r}" in done.stderr
    assert Stub.seen == []


def test_extract_poses_missing_weights_fail_before_anything_is_written(extract, tmp_path):
    done = extract("--estimator_weights=missing")
    assert done.returncode == 2
    assert done.stderr.endswith("error: --estimator_weights missing: not found\n")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_extract_poses_sheet_shows_skeletons_over_photos(extract, photos, tmp_path):
    Image.new("RGB", (64, 32), (1, 0, 0)).save(photos / "z.png")  # wider than high
    assert extract("--sheet", tmp_path / "sheet.png").returncode == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height, width = extraction.CELL
    assert sheet.shape == (height, 7 * width, 3)
    cells = np.split(sheet, 7, axis=1)
    scale = min(height / 64, width / 32)
    left = (width - 32 * scale) / 2
    y, x = joints_of(0)[17]  # the left ear of the first photo
    assert cells[0][round(y * scale), round(left + x * scale)].max() > 200
    inside = cells[1][2:-2, int(left) + 2 : -int(left) - 2]
    assert (inside == (0, 8, 0)).all()  # nobody, nothing drawn
    assert (cells[6][:80] == 255).all()
    assert (cells[6][-80:] == 255).all()


def test_extract_poses_rejects_a_sheet_among_the_photos(extract, photos):
    done = extract("--sheet", photos / "b" / "sheet.png")
    assert done.returncode == 2
    assert "would take it for a photo" in done.stderr
    assert Stub.seen == []


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="other processes do not know the stub")
def test_extract_poses_in_two_processes_gives_the_same_csv(call, photos, tmp_path):
    done = call(extract_poses, photos, tmp_path / "poses.csv", "--estimator=stub", "--workers=2")
    assert done.returncode == 0
    assert Stub.seen == []  # the other processes searched
    check_csv(tmp_path / "poses.csv")


def test_extract_poses_as_a_command_reports_one_line(command, tmp_path):
    done = command("scripts/extract_poses.py", tmp_path / "nowhere", tmp_path / "poses.csv")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'nowhere'}: no such folder\n")
