"""A small Market-1501 archive becomes a data set, in every mode, and with every fault."""

from pathlib import Path

import pytest

from data.market_dataset import MarketDataset
from scripts import prepare_market
from tests.helpers import smooth


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """Market-1501 in small."""
    monkeypatch.setattr(MarketDataset, "published", {"train": (3, 0), "test": (2, 0)})
    names = {"train": ["0002_c1s1_000451_03", "0002_c1s1_000551_01", "0007_c3s3_077419_03"],
             "test": ["-1_c1s1_000401_03", "0000_c1s1_000151_01"]}  # fmt: skip
    for phase, photos in names.items():
        folder = tmp_path / f"disk/Market-1501-v15.09.15/bounding_box_{phase}"
        folder.mkdir(parents=True)
        (folder / "Thumbs.db").write_bytes(b"Windows")
        (folder / "._0002_c1s1_000451_03.jpg").write_bytes(b"macOS")
        for name in photos:
            smooth(64, 128).save(folder / f"{name}.jpg")
    return tmp_path / "disk"


@pytest.mark.parametrize("mode", ["link", "copy", "rename"])
def test_every_mode_gives_the_data_set_once(call, archive, tmp_path, mode):
    root = tmp_path / "dataset/market"
    done = call(prepare_market, "--raw", archive, "--dataroot", root, "--mode", mode)
    assert done.returncode == 0
    skipped = "left out because they are not photos (2): ._0002_c1s1_000451_03.jpg, Thumbs.db"
    assert [line.split(": ", 2)[2] for line in done.stderr.splitlines()] == [skipped, skipped]
    assert len(list((root / "train").glob("0*.jpg"))) == 3
    assert len(list((root / "test").glob("[-0]*.jpg"))) == 2
    raw = archive / "Market-1501-v15.09.15/bounding_box_train"
    assert (root / "train").is_symlink() == (mode == "link")
    assert raw.exists() == (mode != "rename")
    assert (root / "train/Thumbs.db").exists() == (mode != "copy")
    assert f"still needed: {root / 'market-annotation-train.csv'} (published by PATN" in done.stdout
    assert f"{root / 'market-pairs-test.csv'} (published by PATN too; make_pairs.py can make" in done.stdout

    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = call(prepare_market, "--raw", archive, "--dataroot", root, "--mode", mode)
    assert done.returncode == 0
    assert f"{root / 'train'} exists already" in done.stdout
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_links_survive_a_move_of_the_data_root(call, archive):
    """The archive lies in the data root, and the links survive a move of it."""
    root = archive / "Market-1501-v15.09.15"
    assert call(prepare_market, "--dataroot", root).returncode == 0
    moved = root.rename(archive / "market")
    assert len(list((moved / "train").glob("0*.jpg"))) == 3


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_linked_archive_is_found_once(call, archive, tmp_path, mode):
    """The archive is linked into the data root twice, and a loop leads back to the data root."""
    root = tmp_path / "market"
    root.mkdir()
    (root / "Market-1501-v15.09.15").symlink_to("../disk/Market-1501-v15.09.15")
    (root / "again").symlink_to(archive)
    (root / "loop").symlink_to(root)
    done = call(prepare_market, "--dataroot", root, "--mode", mode)
    assert done.returncode == 0, done.stderr
    assert f"{root}/loop is not followed: it is a link back to {root}\n" in done.stderr
    assert len(list((root / "train").glob("0*.jpg"))) == 3


def test_rename_does_not_break_a_link(call, archive, tmp_path):
    folder = archive / "Market-1501-v15.09.15/bounding_box_train"
    folder.rename(tmp_path / "nas")
    folder.symlink_to("../../nas")
    done = call(prepare_market, "--raw", archive, "--dataroot", tmp_path / "market", "--mode=rename")
    assert (done.returncode, folder.is_symlink()) == (2, True)
    assert f"{folder}: a link, which --mode rename would break; use --mode link or --mode copy" in done.stderr


def test_copy_is_completed_and_overwrites_nothing(call, archive, tmp_path):
    root = tmp_path / "market"
    flags = ("--raw", archive, "--dataroot", root, "--mode=copy")
    call(prepare_market, *flags)
    mine, other = sorted((root / "train").glob("*.jpg"))[:2]
    smooth(64, 128).save(mine, quality=5)
    content = mine.read_bytes()
    other.unlink()
    assert call(prepare_market, *flags).returncode == 0
    assert other.exists()
    assert mine.read_bytes() == content


def test_wrong_counts_sizes_and_broken_photos_are_reported(call, archive, tmp_path):
    folder = archive / "Market-1501-v15.09.15/bounding_box_train"
    first, second, third = sorted(folder.glob("0*.jpg"))
    smooth(128, 64).save(first)
    second.write_bytes(b"")
    third.unlink()
    done = call(prepare_market, "--raw", archive, "--dataroot", tmp_path / "market")
    assert done.returncode == 1
    assert "2 photos, Market-1501 has 3" in done.stdout
    assert f"{first.name}: 128 x 64 pixels, expected 64 x 128" in done.stdout
    assert f"{second.name}: photo cannot be decoded" in done.stdout


def test_archive_or_link_that_cannot_be_used_is_an_error(call, archive, tmp_path, monkeypatch):
    root = tmp_path / "market"
    done = call(prepare_market, "--raw", tmp_path / "nowhere", "--dataroot", root)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'nowhere'}: no such folder\n")
    (tmp_path / "empty").mkdir()
    done = call(prepare_market, "--raw", tmp_path / "empty", "--dataroot", root)
    assert "no folder bounding_box_train below it" in done.stderr
    (archive / "copy/bounding_box_train").mkdir(parents=True)
    done = call(prepare_market, "--raw", archive, "--dataroot", root)
    assert "2 folders bounding_box_train" in done.stderr
    (archive / "copy/bounding_box_train").rmdir()

    def refuse(*_, **__):
        raise OSError("a privilege is missing")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    done = call(prepare_market, "--raw", archive, "--dataroot", root)
    assert "--mode link failed (a privilege is missing); use --mode copy or --mode rename" in done.stderr
    monkeypatch.undo()
    (root / "train").symlink_to("gone")
    done = call(prepare_market, "--raw", archive, "--dataroot", root)
    assert done.returncode == 2
    assert "a link to gone, which does not exist" in done.stderr
