"""The csv files: what real ones contain, and every way they can be wrong."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.fashion_dataset import FashionDataset
from data.loaders import EpochBatchSampler, create_test_dataset, create_test_loader, create_train_loaders
from data.market_dataset import MarketDataset
from data.pairs import Pair, read_keypoints, read_pairs, result_name
from tests.conftest import CPU, make_market, write_keypoints
from util.errors import UserError

JOINTS = np.stack([np.arange(18), np.arange(18) * 2], 1)


def options(root: Path, **changes: object) -> Namespace:
    values = {
        "dataroot": str(root),
        "max_dataset_size": None,
        "batchSize": 2,
        "nThreads": 0,
        "seed": 0,
        "val_pairs": 0,
        "accumulate": 1,
        "cache_images": False,
    }
    return Namespace(**{**values, "dataset_mode": "market", "serial_batches": False, **changes})


@pytest.mark.parametrize("separator", [":", ": "])
def test_keypoints(separator, tmp_path):
    """Both separators; -1 is missing, other numbers outside the photo are not."""
    keypoints = JOINTS.copy()
    keypoints[3] = (-1, 50)
    keypoints[4] = (-31, 205)
    all_missing = np.full((18, 2), -1)
    write_keypoints(tmp_path / "k.csv", {"-1_c5s3_086412_11.jpg": keypoints, "nobody.jpg": all_missing}, separator)
    read = read_keypoints(tmp_path / "k.csv")
    assert list(read) == ["-1_c5s3_086412_11.jpg", "nobody.jpg"]
    joints = read["-1_c5s3_086412_11.jpg"]
    assert joints.dtype == np.float32
    assert np.isnan(joints[3]).all()
    assert joints[4].tolist() == [-31, 205]
    assert joints[5].tolist() == [5, 10]
    assert np.isnan(read["nobody.jpg"]).all()


def test_pairs_keep_their_order(tmp_path):
    (tmp_path / "p.csv").write_text("from,to\nb.jpg,a.jpg\n\na.jpg,b.jpg\n")
    assert read_pairs(tmp_path / "p.csv") == [Pair("b.jpg", "a.jpg"), Pair("a.jpg", "b.jpg")]


def test_columns_are_found_by_name(tmp_path):
    (tmp_path / "p.csv").write_text("\ufeffid,to,from\n7,t.jpg,s.jpg\n", encoding="utf-8")
    assert read_pairs(tmp_path / "p.csv") == [Pair("s.jpg", "t.jpg")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must name the columns from,to"),
        ("a,b\n", "from, to missing"),
        ("from,to\n", "no rows below the header"),
        ("from,to\na.jpg\n", "row 2: 1 columns, expected 2"),
        ("from,to\na.jpg,b.jpg\n../a.jpg,b.jpg\n", "row 3: '../a.jpg' points outside"),
        ("from,to\n/etc/passwd,b.jpg\n", "row 2: '/etc/passwd' points outside"),
        ("from,to\nC:\\a.jpg,b.jpg\n", "points outside"),
        ("from,to\n,b.jpg\n", "row 2: empty photo name"),
    ],
)
def test_bad_pairs(content, message, tmp_path):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(UserError, match="p.csv") as caught:
        read_pairs(tmp_path / "p.csv")
    assert message in str(caught.value)


LIST = str(list(range(18)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"a.jpg:{LIST}:{LIST[:-5]}]", "row 3 (a.jpg): expected a list of 18 numbers"),
        (f"a.jpg:{LIST}:[1, 2]", "row 3 (a.jpg): expected a list of 18 numbers"),
        (f"a.jpg:{LIST}:text", "row 3 (a.jpg): not a list of numbers: 'text'"),
        (f"a.jpg:{LIST}:{LIST.replace('17', 'NaN')}", "row 3 (a.jpg): nan is not a finite number"),
        (f"a.jpg:{LIST}:{LIST.replace('17', 'null')}", "row 3 (a.jpg): None is not a finite number"),
        (f'a.jpg:{LIST}:[{", ".join(["1"] * 17)}, ""1""]', "row 3 (a.jpg):"),
        (f"a.jpg:{LIST}", "row 3: 2 columns, expected 3"),
        (f"../a.jpg:{LIST}:{LIST}", "row 3: '../a.jpg' points outside"),
        (f"good.jpg:{LIST}:{LIST.replace('17', '18')}", "row 3: good.jpg came before with other keypoints"),
    ],
)
def test_bad_keypoints(row, message, tmp_path):
    (tmp_path / "k.csv").write_text(f"name:keypoints_y:keypoints_x\ngood.jpg:{LIST}:{LIST}\n{row}\n")
    with pytest.raises(UserError, match="k.csv") as caught:
        read_keypoints(tmp_path / "k.csv")
    assert message in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="nothing.csv: file not found"):
        read_pairs(tmp_path / "nothing.csv")


def test_not_text(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"from,to\n\xff\xfe\x00,b\n")
    with pytest.raises(UserError, match="cannot be read as a csv"):
        read_pairs(tmp_path / "p.csv")


def test_all_missing_photos_and_rows_are_reported(market):
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


def test_missing_folders(tmp_path, market):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        MarketDataset(options(tmp_path / "nowhere"), "train")
    (market / "train").rename(market / "other")
    with pytest.raises(UserError, match="photo folder not found"):
        MarketDataset(options(market), "train")


def test_sample(market):
    dataset = MarketDataset(options(market), "train")
    sample = dataset[1]
    source, target = dataset.pairs[1]
    assert (sample["source_name"], sample["target_name"]) == (source, target)
    assert sample["source_image"].dtype == torch.uint8
    wanted = np.array(Image.open(market / "train" / target)).transpose(2, 0, 1)
    np.testing.assert_array_equal(sample["target_image"], wanted)
    wanted = read_keypoints(market / "market-annotation-train.csv")[source]
    np.testing.assert_array_equal(sample["source_keypoints"], wanted)


def test_fashion_photos_are_stretched(tmp_path):
    """256 x 176 on disk, 256 x 256 (PIL bilinear) for the network, joints with it."""
    (tmp_path / "train").mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (256, 176, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "train/a.jpg", quality=95)
    (tmp_path / "fasion-resize-pairs-train.csv").write_text("from,to\na.jpg,a.jpg\n")
    write_keypoints(tmp_path / "fasion-resize-annotation-train.csv", {"a.jpg": JOINTS})
    sample = FashionDataset(options(tmp_path), "train")[0]
    wanted = Image.open(tmp_path / "train/a.jpg").resize((256, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(sample["source_image"], np.array(wanted).transpose(2, 0, 1))
    assert sample["source_keypoints"][17].tolist() == [17, int(34 * 256 / 176)]


def test_photos_of_other_modes_are_converted(market):
    dataset = MarketDataset(options(market), "train")
    path = market / "train" / dataset.pairs[0].source
    for mode in ("L", "CMYK"):
        Image.new(mode, (64, 128)).save(path)
        assert dataset[0]["source_image"].shape == (3, 128, 64)


def test_wrong_size_is_an_error(market):
    dataset = MarketDataset(options(market), "train")
    Image.new("RGB", (750, 1101)).save(market / "train" / dataset.pairs[0].source)
    with pytest.raises(UserError, match="750 x 1101 pixels, expected 64 x 128"):
        dataset[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 not a photo"])
def test_broken_photo_names_the_file_in_one_line(market, workers, content):
    dataset_options = options(market, nThreads=workers)
    loader = create_train_loaders(dataset_options, CPU)[0]
    (market / "train" / loader.dataset.pairs[0].source).write_bytes(content)
    with pytest.raises(UserError, match="photo cannot be decoded") as caught:
        list(loader)
    assert loader.dataset.pairs[0].source in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_photo(market):
    loader = create_train_loaders(options(market), CPU)[0]
    path = market / "train" / loader.dataset.pairs[0].source
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="photo cannot be decoded"):
        list(loader)


def test_unicode_names(tmp_path):
    market = make_market(tmp_path, phases=("train",))
    (market / "train/0000_c1s1_train.jpg").rename(market / "train/人物 é.jpg")
    for name in ("market-pairs-train.csv", "market-annotation-train.csv"):
        path = market / name
        path.write_text(path.read_text().replace("0000_c1s1_train.jpg", "人物 é.jpg"), encoding="utf-8")
    assert len(MarketDataset(options(market), "train")) == 8


def test_loader_order(market):
    """Training: shuffled by seed and epoch, the tail dropped. Test: every pair, in csv order."""
    loader = create_train_loaders(options(market, batchSize=3), CPU)[0]
    epochs = []
    for epoch in (1, 2, 1):
        loader.set_position(epoch)
        epochs.append([name for batch in loader for name in zip(batch["source_name"], batch["target_name"])])
    assert epochs[0] == epochs[2] != epochs[1]
    assert len(epochs[0]) == 6  # of 8
    loader.set_position(1, batches_done=1)
    assert [name for batch in loader for name in zip(batch["source_name"], batch["target_name"])] == epochs[0][3:]

    serial = create_train_loaders(options(market, serial_batches=True), CPU)[0]
    assert next(iter(serial))["source_name"] == [pair.source for pair in serial.dataset.pairs[:2]]

    test_options = options(market, batchSize=3)
    loader = create_test_loader(test_options, create_test_dataset(test_options), CPU)
    names = [name for batch in loader for name in zip(batch["source_name"], batch["target_name"])]
    assert names == [tuple(pair) for pair in loader.dataset.pairs]


def test_processes_share_each_batch():
    alone = list(EpochBatchSampler(20, 6, shuffle=True, seed=3, drop_last=True))
    shared = [list(EpochBatchSampler(20, 6, True, 3, True, rank, 2)) for rank in range(2)]
    for whole, a, b in zip(alone, *shared):
        assert len(a) == len(b) == 3
        assert sorted(whole) == sorted(a + b)


def test_too_few_pairs_for_a_batch(market):
    with pytest.raises(UserError, match="8 training pairs do not fill one batch of --batchSize 9"):
        create_train_loaders(options(market, batchSize=9), CPU)[0]


def test_max_dataset_size(market):
    assert len(MarketDataset(options(market, max_dataset_size=3), "test")) == 3


def test_result_names():
    assert result_name("a/b.c.jpg", "d.png") == "a_b.c_2_d_vis.jpg"
    assert result_name("0228_c6s3_006817_02.jpg", "x.jpg", "png") == "0228_c6s3_006817_02_2_x_vis.png"


def test_cached_photos_are_decoded_once(market, capsys):
    """By any worker, for all workers: once seen, the files are not needed any more."""
    plain = [MarketDataset(options(market), "train")[i]["target_image"] for i in range(8)]
    loader = create_train_loaders(options(market, cache_images=True, nThreads=2, serial_batches=True), CPU)[0]
    assert "--cache_images: 6 photos need 0.00 GB of shared memory" in capsys.readouterr().out
    first = list(loader)
    for photo in (market / "train").iterdir():
        photo.unlink()
    second = list(loader)
    for epoch in (first, second):
        assert torch.equal(torch.cat([batch["target_image"] for batch in epoch]), torch.stack(plain))


def test_every_process_looks_before_any_takes(market, monkeypatch):
    """Two processes here need twice as much; one that has too little stops all."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 12 * 128 * 64 * 3 - 1)
    with pytest.raises(UserError, match="leave it out"):
        MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 12 * 128 * 64 * 3)
    MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("util.distributed.maximum", lambda _own: True)  # another process
    with pytest.raises(UserError, match="leave it out"):
        MarketDataset(options(market, cache_images=True), "train")


def test_cache_that_does_not_fit(market, monkeypatch):
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: 6 * 128 * 64 * 3 - 1)
    with pytest.raises(UserError, match="--cache_images: 6 photos need .* leave it out"):
        MarketDataset(options(market, cache_images=True), "train")
    monkeypatch.setattr("data.pose_pair_dataset.available_shared_memory", lambda: None)  # the system does not tell
    assert len(MarketDataset(options(market, cache_images=True), "train")) == 8
