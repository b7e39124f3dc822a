"""Samples, checks at start-up, and the cache of decoded images."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from data import find_dataset
from data.fashion_dataset import FashionDataset
from data.loaders import create_train_loaders
from data.market_dataset import MarketDataset
from data.pairs import read_keypoints
from tests.data.loader_options import loader_options as options
from tests.helpers import CPU, make_market, smooth, write_keypoints
from util.errors import UserError


def test_dataset_reports_all_missing_photos_and_keypoints(market):
    """First 10 shown with file and row, and the count."""
    with (market / "market-pairs-train.csv").open("a") as file:
        file.writelines(f"gone{i}.jpg,0000_c1s1_train.jpg\n" for i in range(12))
    with pytest.raises(UserError) as caught:
        MarketDataset(options(market), "train")
    lines = str(caught.value).splitlines()
    assert "market-pairs-train.csv, row 10: no photo" in lines[1]
    assert "row 10: gone0.jpg has no row in" in lines[2]
    assert "market-annotation-train.csv" in lines[2]
    assert len(lines) == 12
    assert lines[-1].strip() == "... and 14 more (24 in all)"


def test_dataset_reports_missing_folders(tmp_path, market):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        MarketDataset(options(tmp_path / "nowhere"), "train")
    (market / "train").rename(market / "other")
    with pytest.raises(UserError, match="photo folder not found"):
        MarketDataset(options(market), "train")


def test_sample_has_pixels_and_keypoints_of_the_pair(market):
    dataset = MarketDataset(options(market), "train")
    sample = dataset[1]
    source, target = dataset.pairs[1]
    assert (sample["source_name"], sample["target_name"]) == (source, target)
    assert sample["source_image"].dtype == torch.uint8
    wanted = np.array(Image.open(market / "train" / target)).transpose(2, 0, 1)
    np.testing.assert_array_equal(sample["target_image"], wanted)
    wanted = read_keypoints(market / "market-annotation-train.csv")[source]
    np.testing.assert_array_equal(sample["source_keypoints"], wanted)


def test_fashion_sample_is_stretched_to_the_network_size(tmp_path):
    """256 x 176 on disk, 256 x 256 (PIL bilinear) for the network, joints with it."""
    (tmp_path / "train").mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (256, 176, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "train/a.jpg", quality=95)
    (tmp_path / "fasion-resize-pairs-train.csv").write_text("from,to\na.jpg,a.jpg\n")
    write_keypoints(
        tmp_path / "fasion-resize-annotation-train.csv", {"a.jpg": np.stack([np.arange(18), np.arange(18) * 2], 1)}
    )
    sample = FashionDataset(options(tmp_path), "train")[0]
    wanted = Image.open(tmp_path / "train/a.jpg").resize((256, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample["source_image"], np.array(wanted).transpose(2, 0, 1))
    assert sample["source_keypoints"][17].tolist() == [17, int(34 * 256 / 176)]


def test_sample_of_a_gray_or_cmyk_photo_has_three_channels(market):
    dataset = MarketDataset(options(market), "train")
    path = market / "train" / dataset.pairs[0].source
    for mode in ("L", "CMYK"):
        Image.new(mode, (64, 128)).save(path)
        assert dataset[0]["source_image"].shape == (3, 128, 64)


@pytest.mark.parametrize("orientation", [3, 6])
def test_sample_of_a_phone_photo_is_upright(market, orientation):
    """A photo on its side has the stored size once it is turned; its keypoints are those of the turned photo."""
    dataset = MarketDataset(options(market), "train")
    path = market / "train" / dataset.pairs[0].source
    upright, exif = smooth(64, 128), Image.Exif()
    exif[0x112] = orientation
    inverse = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    upright.transpose(inverse).save(path, format="PNG", exif=exif)
    np.testing.assert_array_equal(dataset[0]["source_image"], np.asarray(upright).transpose(2, 0, 1))


def test_sample_of_a_linked_folder_is_found(market):
    (market / "train").rename(market / "disk")
    (market / "train").mkdir()
    (market / "train/0001").symlink_to(market / "disk")
    for name in ("market-pairs-train.csv", "market-annotation-train.csv"):
        text = (market / name).read_text()
        (market / name).write_text(re.sub(r"(\d{4}_c\ds1_train.jpg)", r"0001/\1", text))
    dataset = MarketDataset(options(market), "train")
    assert dataset[0]["source_image"].shape == (3, 128, 64)
    (market / "disk").rename(market / "gone")
    with pytest.raises(UserError, match=rf"{market}/train/0001 is a link to {market}/disk, which does not exist"):
        MarketDataset(options(market), "train")


def test_dataset_says_what_is_no_photo_and_what_has_another_unicode_form(market):
    names = sorted(path.name for path in (market / "train").iterdir())
    (market / "train" / names[0]).rename(market / "train/0001")  # a photo without suffix is one
    (market / "train" / names[1]).rename(market / "train/e\u0301.jpg")
    (market / "train/a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    for name in ("market-pairs-train.csv", "market-annotation-train.csv"):
        text = (market / name).read_text()
        for old, new in zip(names, ("0001", "\u00e9.jpg", "a.heic")):
            text = text.replace(old, new)
        (market / name).write_text(text)
    with pytest.raises(UserError) as caught:
        MarketDataset(options(market), "train")
    assert "0001" not in str(caught.value).split("\n", 1)[1]
    assert "train/\u00e9.jpg (it is there in another Unicode form, NFD" in str(caught.value)
    assert "train/a.heic is not a photo (HEIC, as iPhones write it" in str(caught.value)


def test_sample_of_a_wrong_size_is_an_error(market):
    dataset = MarketDataset(options(market), "train")
    Image.new("RGB", (750, 1101)).save(market / "train" / dataset.pairs[0].source)
    with pytest.raises(UserError, match="750 x 1101 pixels, expected 64 x 128"):
        dataset[0]


def test_dataset_accepts_unicode_names(tmp_path):
    market = make_market(tmp_path, phases=("train",))
    (market / "train/0000_c1s1_train.jpg").rename(market / "train/人物 é.jpg")
    for name in ("market-pairs-train.csv", "market-annotation-train.csv"):
        path = market / name
        path.write_text(path.read_text().replace("0000_c1s1_train.jpg", "人物 é.jpg"), encoding="utf-8")
    assert len(MarketDataset(options(market), "train")) == 8


def test_max_dataset_size_limits_the_pairs(market):
    assert len(MarketDataset(options(market, max_dataset_size=3), "test")) == 3


def test_cache_images_decodes_each_photo_once(market, capsys):
    """Workers share what any of them has decoded: after one epoch the files are not needed any more."""
    plain = [MarketDataset(options(market), "train")[i]["target_image"] for i in range(8)]
    loader = create_train_loaders(options(market, cache_images=True, nThreads=2, serial_batches=True), CPU)[0]
    assert "--cache_images: 6 photos need 0.00 GB of shared memory" in capsys.readouterr().out
    first = list(loader)
    for photo in (market / "train").iterdir():
        photo.unlink()
    second = list(loader)
    for epoch in (first, second):
        assert torch.equal(torch.cat([batch["target_image"] for batch in epoch]), torch.stack(plain))


def test_cache_images_checks_the_memory_of_all_processes(market, monkeypatch):
    """Two processes on this machine need twice the memory; if one of them has too little, all stop."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 12 * 128 * 64 * 3 - 1)
    with pytest.raises(UserError, match="leave it out"):
        MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 12 * 128 * 64 * 3)
    MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("util.distributed.maximum", lambda _own: True)  # another machine says why
    with pytest.raises(SystemExit, match="2"):
        MarketDataset(options(market, cache_images=True), "train")


def test_cache_images_rejects_a_cache_that_does_not_fit(market, monkeypatch):
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 6 * 128 * 64 * 3 - 1)
    with pytest.raises(UserError, match="--cache_images: 6 photos need .* leave it out"):
        MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: None)  # the system does not report it
    assert len(MarketDataset(options(market, cache_images=True), "train")) == 8


@pytest.mark.parametrize("mode", ["fashion", "market"])
def test_published_counts_are_those_of_patns_lists(mode):
    """The facts of PATN's lists."""
    counts = {"fashion": [(48674, 101966), (4038, 8570)], "market": [(12936, 263632), (19732, 12000)]}
    assert list(find_dataset(mode).published.values()) == counts[mode]


def test_fashion512_doubles_patns_keypoints(tmp_path):
    rows = {f"a_{view}.jpg": np.full((18, 2), (100, 80 + view)) for view in range(2)}
    rows["a_1.jpg"][3] = -1
    (tmp_path / "train").mkdir()
    for name in rows:
        smooth(352, 512).save(tmp_path / "train" / name)
    write_keypoints(tmp_path / "fasion-resize-annotation-train.csv", rows)
    (tmp_path / "fasion-resize-pairs-train.csv").write_text("from,to\na_0.jpg,a_1.jpg\n")
    dataset = find_dataset("fashion512")(options(tmp_path), "train")
    sample = dataset[0]
    assert sample["source_image"].shape == (3, 512, 352)
    assert sample["source_keypoints"].tolist() == [[200, 160]] * 18
    assert sample["target_keypoints"][0].tolist() == [200, 162]
    assert sample["target_keypoints"][3].isnan().all()
