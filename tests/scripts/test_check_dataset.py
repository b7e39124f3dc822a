"""The check of a whole data set: every fault, its severity and the exit status."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from scripts import check_dataset
from tests.helpers import smooth, write_keypoints

POSE = np.stack([np.arange(18) * 5, np.arange(18) * 2], 1)

NOBODY = np.full((18, 2), -1)


FASHION_NAMES = (
    "fashionMENShirts_Polosid0000180202_4full.jpg",
    "fashionWOMENBlouses_Shirtsid0000069302_3back.jpg",
    "fashionWOMENPantsid0000611101_3back.jpg",
)


def make_poses(path: Path, poses: dict[str, np.ndarray]) -> Path:
    write_keypoints(path, poses, ": ")
    return path


@pytest.fixture
def sound(tmp_path) -> Path:
    """A small data set in the layout of Market-1501 without any fault."""
    root = tmp_path / "market"
    for phase, person in (("train", "0002"), ("test", "0003")):
        (root / phase).mkdir(parents=True)
        names = [f"{person}_{view}.jpg" for view in "abc"]
        for name in names:
            smooth(64, 128).save(root / phase / name)
        make_poses(root / f"market-annotation-{phase}.csv", dict.fromkeys(names, POSE))
        (root / f"market-pairs-{phase}.csv").write_text(f"from,to\n{names[0]},{names[1]}\n{names[1]},{names[0]}\n")
    return root


def check(call: Callable[..., CompletedProcess], root: Path, *flags: str) -> CompletedProcess:
    return call(check_dataset, "--dataset_mode=market", "--dataroot", root, "--own_data", *flags)


def test_sound_set_is_fit_to_train(call, sound):
    done = check(call, sound)
    assert (done.returncode, done.stderr) == (0, "")
    title, train, test, end = done.stdout.splitlines()
    assert title.split()[:2] == ["photos", "published"]
    assert train.split() == ["train", "3", "-", "2", "-", "3", "2", "1"]
    assert test.split() == ["test", "3", "-", "2", "-", "3", "2", "1"]
    assert end == f"{sound}: fit to train"


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def change_poses(root: Path, **poses: np.ndarray) -> None:
    every = {**dict.fromkeys("abc", POSE), **poses}
    make_poses(root / "market-annotation-train.csv", {f"0002_{view}.jpg": pose for view, pose in every.items()})


PAIRS, KEYPOINTS = "market-pairs-train.csv", "market-annotation-train.csv"


OUTSIDE = np.where(np.arange(18)[:, None] == 3, (-31, 205), POSE)


def save_upside_down(path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 3
    smooth(64, 128).save(path, exif=exif)


FAULTS = {  # name: exit status, damage, line
    "no pairs csv": (2, lambda r: (r / PAIRS).unlink(), "error .*market-pairs-train.csv: file not found"),
    "bad row": (2, lambda r: append(r / PAIRS, "x.jpg\n"), "error .*bad rows:\n.*row 4: 1 columns, expected 2"),
    "bad keypoints": (
        2,
        lambda r: append(r / KEYPOINTS, "x.jpg:[1]:[2]\n"),
        "error .*\n.*row 5: x.jpg: expected a list of",
    ),
    "no photos": (
        2,
        lambda r: (r / "train").rename(r / "x"),
        "error .*train: 3 of 3 listed .*; pairs need 2 of them:\n",
    ),
    "photo gone": (2, lambda r: (r / "train/0002_a.jpg").unlink(), "error .*1 of 3 .*need 1 of them:\n  0002_a.jpg\n"),
    "unused gone": (1, lambda r: (r / "train/0002_c.jpg").unlink(), "warning .*1 of 3 .*missing:\n  0002_c.jpg\n"),
    "empty photo": (2, lambda r: (r / "train/0002_a.jpg").write_bytes(b""), "error .*\n.*a.jpg: photo cannot be"),
    "cut photo": (
        2,
        lambda r: (r / "train/0002_a.jpg").write_bytes((r / "train/0002_a.jpg").read_bytes()[:-200]),
        "error .*1 photos that pairs need cannot be used:\n.*0002_a.jpg: photo cannot be decoded",
    ),
    "unused broken": (1, lambda r: (r / "train/0002_c.jpg").write_bytes(b""), "warning .*no pair needs cannot be used"),
    "wrong size": (
        2,
        lambda r: smooth(128, 64).save(r / "train/0002_a.jpg"),
        "error .*\n.*a.jpg: 128 x 64 pixels, exp",
    ),
    "no keypoints": (
        2,
        lambda r: (append(r / PAIRS, "0002_a.jpg,0002_z.jpg\n"), smooth(64, 128).save(r / "train/0002_z.jpg")),
        "error .*1 photos in pairs have no keypoints:\n  0002_z.jpg\n",
    ),
    "no joints, used": (1, lambda r: change_poses(r, a=NOBODY), "warning .*1 photos in pairs have no joint"),
    "no joints, unused": (
        0,
        lambda r: change_poses(r, c=NOBODY),
        "note .*1 poses without any joint, which no pair uses",
    ),
    "joints outside": (
        1,
        lambda r: change_poses(r, a=OUTSIDE),
        "warning .*1 joints .1.85%. lie outside 64 x 128 pixels",
    ),
    "equal pairs": (
        1,
        lambda r: append(r / PAIRS, "0002_a.jpg,0002_b.jpg\n"),
        "warning .*1 rows .*:\n  0002_a.jpg,0002_b",
    ),
    "equal poses": (
        1,
        lambda r: append(r / KEYPOINTS, (r / KEYPOINTS).read_text().splitlines()[1]),
        "warning .*annotation-train.csv: 1 rows come more than once:\n  0002_a.jpg\n",
    ),
    "unlisted photo": (
        0,
        lambda r: smooth(64, 128).save(r / "train/x.jpg"),
        "note .*1 photos are in no list:\n  x.jpg\n",
    ),
    "phone photo": (
        1,
        lambda r: save_upside_down(r / "train/0002_a.jpg"),
        "warning  train: 1 photos with an EXIF orientation, .*; the published photos have none:\n  0002_a.jpg\n",
    ),
    "transparent": (
        0,
        lambda r: Image.new("RGBA", (64, 128)).save(r / "train/0002_a.jpg", format="PNG"),
        "note     train: 1 photos with transparent pixels, composed on white; .*:\n  0002_a.jpg\n",
    ),
    "no photo": (
        0,
        lambda r: (r / "train/a.heic").write_bytes(b"\0\0\0\x18ftypheic"),
        "note .*train: left out because they are not photos .1.: a.heic .HEIC, as iPhones write it",
    ),
    "renamed photo": (
        2,
        lambda r: (append(r / PAIRS, "0002_a.jpg,x.json\n"), (r / "train/x.json").write_text("{}")),
        r"error .*1 of 4 listed photos are missing; pairs need 1 of them:\n  x.json \(is not a photo: unknown ",
    ),
    "other form": (
        2,
        lambda r: (
            append(r / PAIRS, "0002_a.jpg,0002_\u00e9.jpg\n"),
            smooth(64, 128).save(r / "train/0002_e\u0301.jpg"),
        ),
        r"error .*missing; pairs need 1 of them:\n  0002_\u00e9.jpg \(it is there in another Unicode form, NFD",
    ),
    "bad list": (2, lambda r: (r / "train.lst").write_text("../a.jpg\n"), "error .*'../a.jpg' is no plain file name"),
    "not text": (2, lambda r: (r / "train.lst").write_bytes(b"\xff\xfe"), "error .*train.lst: not a list of names"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_gives_its_message_and_exit_status(call, sound, fault):
    status, damage, message = FAULTS[fault]
    damage(sound)
    done = check(call, sound)
    assert re.search(f"^{message}", done.stdout, re.MULTILINE), done.stdout
    assert done.returncode == status
    assert done.stdout.endswith(f": {('fit to train', 'usable, with warnings', 'broken')[status]}\n")
    assert check(call, sound, "--phases", "test").returncode == 0


def test_result_names_of_test_pairs_are_checked(call, sound):
    name = f"{'x' * 240}.jpg"
    append(sound / "market-pairs-test.csv", f"0003_a.jpg,{name}\n")
    smooth(64, 128).save(sound / "test" / name)
    done = check(call, sound)
    assert done.returncode == 2
    assert "error    1 file names would be longer than 255 bytes" in done.stdout


def test_identities_in_train_and_test_are_a_warning_but_for_distractors(call, sound):
    """Distractors may be in both."""
    for phase in ("train", "test"):
        smooth(64, 128).save(sound / phase / "0000_x.jpg")
        (sound / f"{phase}.lst").write_text("0000_x.jpg\n")
    assert check(call, sound).returncode == 0
    smooth(64, 128).save(sound / "test/0002_x.jpg")
    (sound / "test.lst").write_text("0002_x.jpg\n")
    done = check(call, sound)
    assert done.returncode == 1
    assert "1 identities are in train and test:\n  0002\n" in done.stdout


def test_few_joints_outside_are_a_note(call, sound):
    """As in DeepFashion itself."""
    names = [f"0002_{i}.jpg" for i in range(10)]
    make_poses(sound / KEYPOINTS, {**dict.fromkeys(["0002_a.jpg", "0002_b.jpg", *names], POSE), "0002_c.jpg": OUTSIDE})
    for name in names:
        smooth(64, 128).save(sound / "train" / name)
    done = check(call, sound)
    assert done.returncode == 0
    assert "note     train: 1 joints (0.43%) lie outside 64 x 128 pixels, in 1 photos:\n  0002_c.jpg\n" in done.stdout


def test_counts_are_compared_with_the_published_set(call, sound):
    done = call(check_dataset, "--dataset_mode=market", "--dataroot", sound)
    assert done.returncode == 1
    assert "warning  train: 3 photos, the published set has 12936\n" in done.stdout
    assert "warning  test: 2 pairs, the published set has 12000\n" in done.stdout
    assert done.stdout.splitlines()[1].split()[:5] == ["train", "3", "12936", "2", "263632"]


def test_faults_are_listed_with_the_worst_first(call, sound):
    """The worst first, and its status; --show names of each."""
    for fault in ("equal pairs", "photo gone", "no joints, unused", "bad list"):
        FAULTS[fault][1](sound)
    (sound / "test.lst").write_text("1.jpg\n2.jpg\n3.jpg\n")
    done = check(call, sound, "--show", "1")
    assert done.returncode == 2
    found = [line.split()[0] for line in done.stdout.splitlines()[3:-1] if not line.startswith(" ")]
    assert found == ["error", "error", "warning", "warning", "note"]
    assert "  1.jpg\n  ... and 2 more (3 in all)\n" in done.stdout


def test_lists_without_photos_report_each_fault_once(call, tmp_path):
    """Genuine rows: each fault once, with its count; the train lists are absent."""
    make_poses(tmp_path / "fasion-resize-annotation-test.csv", dict.fromkeys(FASHION_NAMES, POSE))
    name = FASHION_NAMES[0]
    (tmp_path / "fasion-resize-pairs-test.csv").write_text(f"from,to\n{name},{name}\n")
    (tmp_path / "train.lst").write_text("fashionWOMENPantsid0000611102_3back.jpg\n")  # the item, in another color
    done = call(check_dataset, "--dataset_mode=fashion", "--dataroot", tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("listed photos are missing") == 2
    assert f"{tmp_path / 'test'}: 3 of 3 listed photos are missing; pairs need 1 of them" in done.stdout
    assert done.stdout.count("file not found") == 2
    assert done.stdout.count("warning") == 1  # one pair is not 8570


def test_missing_dataroot_or_unknown_dataset_is_refused(call, tmp_path):
    done = call(check_dataset, "--dataset_mode=market", "--dataroot", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (2, f"error: --dataroot {tmp_path / 'nowhere'}: no such folder\n")
    assert call(check_dataset, "--dataset_mode=paintings").returncode == 2
