"""Small DeepFashion archives become data sets: every layout, every fault, and the exit status."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import generate_fashion_datasets
from data.fashion_dataset import FashionDataset
from data.generate_fashion_datasets import CROP, scale_down, stored_name
from tests.helpers import REPOSITORY, smooth

# raw photo -> name in PATN's lists (train.lst, the last two test.lst)
NAMES = {
    "WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg": "fashionWOMENTees_Tanksid0000783805_7additional.jpg",
    "WOMEN/Rompers_Jumpsuits/id_00001045/07_1_front.jpg": "fashionWOMENRompers_Jumpsuitsid0000104507_1front.jpg",
    "WOMEN/Skirts/id_00000629/04_3_back.jpg": "fashionWOMENSkirtsid0000062904_3back.jpg",
    "MEN/Jackets_Vests/id_00000716/03_4_full.jpg": "fashionMENJackets_Vestsid0000071603_4full.jpg",
    "MEN/Shirts_Polos/id_00001802/02_4_full.jpg": "fashionMENShirts_Polosid0000180202_4full.jpg",
    "WOMEN/Pants/id_00006111/01_3_back.jpg": "fashionWOMENPantsid0000611101_3back.jpg",
}


UNLISTED = "MEN/Denim/id_00000080/01_6_flat.jpg"


def make_raw(root: Path, layout: str = "img", size: tuple[int, int] = (256, 256)) -> Path:
    """A DeepFashion root in small: lists, and raw photos of `size` (width, height) below `layout`."""
    root.mkdir(parents=True, exist_ok=True)
    names = list(NAMES.values())
    (root / "train.lst").write_text("\n".join(names[:4]) + "\n")
    (root / "test.lst").write_text("\r\n".join(names[4:]) + "\r\n")
    for raw in [*NAMES, UNLISTED]:
        path = root / layout / raw
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth(*size).save(path, quality=95)
    return root


def stored(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for phase in ("train", "test") for path in (root / phase).rglob("*")}


ALL_STORED = {f"{'train' if i < 4 else 'test'}/{name}" for i, name in enumerate(NAMES.values())}


@pytest.mark.parametrize("raw", NAMES)
def test_stored_name_is_that_of_patns_lists(raw):
    assert stored_name(Path("somewhere/img", raw)) == NAMES[raw]


def test_crop_has_the_stored_size_and_is_centered():
    assert CROP == (40, 0, 216, 256)
    assert FashionDataset.stored_size == (CROP[3] - CROP[1], CROP[2] - CROP[0])


@pytest.mark.parametrize("layout", ["img", "", "In-shop Clothes Retrieval Benchmark/Img/img"])
def test_photos_are_found_in_every_layout(call, tmp_path, layout):
    root = make_raw(tmp_path / "fashion", layout)
    done = call(generate_fashion_datasets, "--dataroot", root, "--workers", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(root) == ALL_STORED
    assert re.search(r"train +4 +0 +4 +0 +0\ntest +2 +0 +2 +0 +0\n", done.stdout)
    assert "found: 7, of which not listed: 1" in done.stdout
    assert "JPEG quality 75" in done.stdout
    raw = np.array(Image.open(root / layout / next(iter(NAMES)))).astype(int)
    with Image.open(root / "train" / next(iter(NAMES.values()))) as photo:
        assert photo.size == (176, 256)
        change = np.array(photo) - raw[:, 40:216]  # a column aside, red is another level
        assert abs(change).max() <= 8
        assert abs(change.mean((0, 1))).max() < 0.3


def test_raw_photos_of_other_types_and_linked_folders_are_found(call, tmp_path):
    """A linked folder of persons, a loop, and photos whose suffix is not .jpg; what is no photo is counted."""
    root = make_raw(tmp_path / "fashion", "../disk")
    raw = root / "img"
    raw.symlink_to("../disk")
    (tmp_path / "disk/loop").symlink_to(root)
    first, second, *_ = (raw / name for name in NAMES)
    first.rename(first.with_suffix(".JPG"))
    Image.open(second).save(second.with_suffix(".png"))
    second.unlink()
    (first.parent / "notes.txt").write_text("no photo")
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 0, done.stderr
    assert stored(root) == ALL_STORED
    notes = [line.removeprefix(f"note: {root}") for line in done.stderr.splitlines()]
    assert f"/img/loop is not followed: it is a link back to {root}" in notes
    listed = first.parent.relative_to(root) / "notes.txt"
    assert f": left out because they are not photos (1): {listed}" in notes


def test_phone_photo_is_cropped_upright(call, tmp_path):
    root, exif = make_raw(tmp_path / "fashion"), Image.Exif()
    exif[0x112] = 6
    raw, name = next(iter(NAMES.items()))
    smooth(256, 256).transpose(Image.Transpose.ROTATE_90).save(root / "img" / raw, exif=exif, quality=95)
    assert call(generate_fashion_datasets, "--dataroot", root).returncode == 0
    with Image.open(root / "train" / name) as photo:
        assert not photo.getexif()
        assert abs(np.array(photo).astype(int) - np.array(smooth(256, 256))[:, 40:216]).max() <= 8


def test_published_command_runs_as_a_script(command, tmp_path):
    """As a script from the root of a repository, without flags."""
    root = make_raw(tmp_path / "work/dataset/fashion", "")
    done = command("data/generate_fashion_datasets.py", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert stored(root) == ALL_STORED


def test_default_quality_writes_the_published_bytes(call, tmp_path):
    """The published script calls Pillow's `save` without a quality."""
    root = make_raw(tmp_path / "fashion")
    call(generate_fashion_datasets, "--dataroot", root)
    for number, (raw, name) in enumerate(NAMES.items()):
        Image.open(root / "img" / raw).crop((40, 0, 216, 256)).save(tmp_path / "published.jpg")
        ours = root / ("train" if number < 4 else "test") / name
        assert ours.read_bytes() == (tmp_path / "published.jpg").read_bytes()


def test_quality_sets_the_jpeg_quality(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    call(generate_fashion_datasets, "--dataroot", root, "--quality", 60)
    smooth(8, 8).save(tmp_path / "60.jpg", quality=60)
    with Image.open(root / "train" / NAMES[next(iter(NAMES))]) as ours, Image.open(tmp_path / "60.jpg") as wanted:
        assert ours.quantization == wanted.quantization


def test_second_run_does_nothing_and_nothing_is_overwritten(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    first = root / "train" / next(iter(NAMES.values()))
    first.parent.mkdir()
    first.write_bytes(b"the user's own")
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert re.search(r"train +4 +1 +3 +0 +0\ntest +2 +0 +2 +0 +0\n", done.stdout)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 0
    assert "0 to write" in done.stdout
    assert re.search(r"train +4 +4 +0 +0 +0\ntest +2 +2 +0 +0 +0\n", done.stdout)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert first.read_bytes() == b"the user's own"


def test_raw_photos_elsewhere_may_be_removed_afterwards(call, tmp_path):
    root, raw = make_raw(tmp_path / "fashion", "../disk"), tmp_path / "disk"
    assert "no raw photos such as" in call(generate_fashion_datasets, "--dataroot", root).stderr
    assert call(generate_fashion_datasets, "--dataroot", root, "--raw", raw).returncode == 0
    raw.rename(tmp_path / "gone")
    assert call(generate_fashion_datasets, "--dataroot", root).returncode == 0


def test_listed_but_missing_photos_are_reported(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    with (root / "train.lst").open("a") as file:
        file.writelines(f"fashionMENPantsid000016{i}_1front.jpg\n" for i in range(1100, 1112))
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 1
    assert stored(root) == ALL_STORED
    assert re.search(r"train +16 +0 +4 +0 +12\n", done.stdout)
    names = done.stdout.split("listed but missing:\n")[1].splitlines()
    assert names[0].strip() == "fashionMENPantsid0000161100_1front.jpg"
    assert len(names) == 11
    assert names[10].strip() == "... and 2 more (12 in all)"


def test_high_resolution_archive_is_refused(call, tmp_path):
    root = make_raw(tmp_path / "fashion", "img_highres", (750, 1101))
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 2
    assert "750 x 1101 pixels: this is the high-resolution archive" in done.stderr
    assert "--allow_highres" in done.stderr
    assert stored(root) == set()


def test_high_resolution_archive_is_scaled_with_allow_highres(call, tmp_path):
    root = make_raw(tmp_path / "fashion", "img_highres", (750, 1101))
    done = call(generate_fashion_datasets, "--dataroot", root, "--allow_highres")
    assert done.returncode == 0
    assert "published numbers will not match" in done.stdout
    assert stored(root) == ALL_STORED
    with Image.open(root / "train" / next(iter(NAMES.values()))) as photo:
        assert photo.size == (176, 256)


def test_scale_down_keeps_joints_where_the_low_resolution_archive_has_them():
    """174 columns in the middle of 176; the outermost are repeated."""
    photo = smooth(750, 1101)
    columns = np.array(scale_down(photo)).swapaxes(0, 1)
    inner = np.array(photo.resize((174, 256), Image.Resampling.LANCZOS)).swapaxes(0, 1)
    np.testing.assert_array_equal(columns, [inner[0], *inner, inner[-1]])


def test_unusable_photos_do_not_stop_the_others(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    empty, cut, odd, *_ = (root / "img" / raw for raw in NAMES)
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-300])
    smooth(300, 256).save(odd)
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 1
    assert len(stored(root)) == 3
    assert re.search(r"train +4 +0 +1 +3 +0\n", done.stdout)
    assert f"{empty}: photo cannot be decoded" in done.stdout
    assert f"{cut}: photo cannot be decoded" in done.stdout
    assert f"{odd}: 300 x 256 pixels, expected 256 x 256" in done.stdout


def test_cropped_photos_keep_their_bytes(call, tmp_path):
    root = make_raw(tmp_path / "fashion", size=(176, 256))
    assert call(generate_fashion_datasets, "--dataroot", root, "--quality", 10).returncode == 0
    for i, (raw, name) in enumerate(NAMES.items()):
        assert (root / ("train" if i < 4 else "test") / name).read_bytes() == (root / "img" / raw).read_bytes()


def test_other_modes_become_rgb(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    for raw, mode in zip(NAMES, ("L", "CMYK")):
        Image.new(mode, (256, 256)).save(root / "img" / raw)
    assert call(generate_fashion_datasets, "--dataroot", root).returncode == 0
    for name in list(NAMES.values())[:2]:
        with Image.open(root / "train" / name) as photo:
            assert photo.mode == "RGB"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "train.lst: file not found; PATN"),
        ("\n", "train.lst: no names in it"),
        ("../../etc/a.jpg\n", "'../../etc/a.jpg' is no plain file name"),
        ("/etc/a.jpg\n", "'/etc/a.jpg' is no plain file name"),
        ("a.jpg\na.jpg\n", "train.lst: 1 names come twice"),
        (
            "fashionWOMENPantsid0000611101_3back.jpg\n",
            "train.lst and test.lst share 1 names, such as fashionWOMENPants",
        ),
    ],
)
def test_bad_list_is_one_line(call, tmp_path, content, message):
    root = make_raw(tmp_path / "fashion")
    (root / "train.lst").unlink()
    if content:
        (root / "train.lst").write_text(content)
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert stored(root) == set()


def test_missing_folder_or_two_archives_are_an_error(call, tmp_path):
    done = call(generate_fashion_datasets, "--dataroot", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'nowhere'}: no such folder\n")
    root = make_raw(tmp_path / "fashion")
    make_raw(tmp_path / "fashion", "img_highres", (750, 1101))
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 2
    assert "are the same photo of two archives; choose one with --raw" in done.stderr
    assert call(generate_fashion_datasets, "--dataroot", root, "--raw", root / "img").returncode == 0


def test_packed_archive_is_named(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    (root / "img").rename(tmp_path / "elsewhere")
    (root / "img.zip").write_bytes(b"")
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 2
    assert "unpack img.zip first" in done.stderr
    assert "password" in done.stderr


def test_failed_write_is_one_line(call, tmp_path):
    root = make_raw(tmp_path / "fashion")
    (root / "train").write_text("a file, where a folder should be")
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_interrupted_run_leaves_complete_photos_and_can_be_resumed(call, tmp_path):
    """Ctrl-C, with several processes at work."""
    root = make_raw(tmp_path / "fashion")
    noise = np.random.RandomState(0).randint(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    names = []
    for item in range(3000):
        raw = root / f"img/MEN/Pants/id_{item:08d}/01_1_front.jpg"
        raw.parent.mkdir(parents=True)
        os.link(tmp_path / "noise.jpg", raw)
        names.append(stored_name(raw))
    (root / "train.lst").write_text("\n".join(names))
    script = [sys.executable, REPOSITORY / "data/generate_fashion_datasets.py", "--dataroot", root, "--workers", "2"]
    process = subprocess.Popen(
        script, start_new_session=True, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell started us with '&'
    )  # fmt: skip
    while not list((root / "train").glob("[!.]*")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == "interrupted\n"
    written = stored(root)
    assert 0 < len(written) < 3000
    assert not any(Path(name).name.startswith(".") for name in written)
    sizes = {(root / name).stat().st_size for name in written}
    assert len(sizes) == 1

    (root / "train.lst").write_text("\n".join(sorted(Path(name).name for name in written) + names[-40:]))
    done = call(generate_fashion_datasets, "--dataroot", root)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"train +{len(written) + 40} +{len(written)} +40 +0 +0\n", done.stdout)


def test_quality_above_100_is_refused(call):
    assert call(generate_fashion_datasets, "--quality=101").returncode == 2


def test_fashion512_has_every_joint_where_the_doubled_keypoints_are(call, tmp_path, monkeypatch):
    """A white dot of the raw photo at (row, column) of 1101 x 750 is at (row, column) * 512 / 1101 plus 2 columns."""
    root = make_raw(tmp_path / "fashion512", "img_highres", size=(750, 1101))
    raw, name = next(iter(NAMES.items()))
    photo = np.zeros((1101, 750, 3), np.uint8)
    photo[560:581, 400:421] = 255  # centered at (570, 410)
    Image.fromarray(photo).save(root / "img_highres" / raw, quality=95)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir()
    root.rename(tmp_path / "dataset/fashion512")
    done = call(generate_fashion_datasets, "--dataset_mode=fashion512", "--workers", 1)
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "dataset/fashion512/train" / name) as image:
        assert image.size == (352, 512)
        bright = np.array(image.convert("L"), float)
    center = [(bright * axis).sum() / bright.sum() for axis in np.mgrid[:512, :352]]
    assert center[0] == pytest.approx(570.5 * 512 / 1101 - 0.5, abs=0.3)
    assert center[1] == pytest.approx(410.5 * 512 / 1101 - 0.5 + 2, abs=0.6)


def test_fashion512_refuses_photos_of_the_low_resolution_archive(call, tmp_path):
    root = make_raw(tmp_path / "fashion512")
    done = call(generate_fashion_datasets, "--dataset_mode=fashion512", "--dataroot", root, "--workers", 1)
    assert done.returncode == 1
    assert "256 x 256 pixels; expected a photo of the high-resolution archive" in done.stdout
    assert stored(root) == set()
