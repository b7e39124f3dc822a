"""The data set of rendered people that the command writes."""

import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.pairs import read_keypoints, read_pairs
from data.synthetic import people
from data.synthetic.people import render_identity, render_people
from tests.data.loader_options import loader_options as options

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # a division by zero would spoil the image


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered")
    render_people(root / "market", "market", (3, 2), photos=3, seed=5, workers=1)
    return root / "market"


def test_market_set_has_disjoint_identities_and_all_their_pairs(rendered):
    """Both splits load, identities are disjoint, all ordered pairs are there, some joints are missing."""
    train, test = (MarketDataset(options(rendered), phase) for phase in ("train", "test"))
    assert (len(train), len(test)) == (3 * 6, 2 * 6)
    assert train[0]["source_image"].shape == (3, 128, 64)
    identities = [{MarketDataset.identity(pair.source) for pair in split.pairs} for split in (train, test)]
    assert list(map(len, identities)) == [3, 2]
    assert not identities[0] & identities[1]
    assert all(MarketDataset.identity(a) == MarketDataset.identity(b) and a != b for a, b in train.pairs + test.pairs)
    joints = np.stack(list(read_keypoints(rendered / "market-annotation-train.csv").values()))
    missing = np.isnan(joints).any(-1)
    assert 0.02 < missing.mean() < 0.4
    known = joints[~missing]
    assert (known >= 0).all()
    assert (known < (128, 64)).all()
    assert (known == known.round()).all()


def test_fashion_set_loads(tmp_path):
    render_people(tmp_path, "fashion", (2, 1), photos=2, seed=1, workers=1)
    data = FashionDataset(options(tmp_path), "train")
    assert data[0]["source_image"].shape == (3, 256, 256)
    assert Image.open(tmp_path / "test" / read_pairs(tmp_path / "fasion-resize-pairs-test.csv")[0].source).size == (
        176,
        256,
    )
    assert len({FashionDataset.identity(pair.source) for pair in data.pairs}) == 2


def test_same_seed_gives_the_same_files_for_any_number_of_processes(rendered, tmp_path):
    """The files do not depend on the number of processes; another seed gives other pixels."""
    render_people(tmp_path / "again", "market", (3, 2), photos=3, seed=5, workers=2)
    files = sorted(p.relative_to(rendered) for p in rendered.rglob("*") if p.is_file())
    assert len(files) == 15 + 4
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (rendered / name).read_bytes()
    other = render_identity(1, "market", 1, seed=6)[0]
    assert not np.array_equal(other.pixels, render_identity(1, "market", 1, seed=5)[0].pixels)


def test_identity_keeps_its_background(rendered):
    """In a corner of the background, photos of one identity differ less than those of different identities."""
    photos = sorted((rendered / "train").glob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(p), float) for p in photos])
    people = np.array([MarketDataset.identity(p.name) for p in photos])
    corner = pixels[:, :12, :12].mean((1, 2))
    own = max(np.abs(corner[people == p] - corner[people == p].mean(0)).max() for p in set(people))
    means = [corner[people == p].mean(0) for p in sorted(set(people))]
    other = min(np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i])
    assert own < 6 < other


def test_command_completes_its_own_data_set_and_changes_nothing_else(call, tmp_path):
    out = tmp_path / "people"
    flags = ("--out", out, "--identities=2", "--test_identities=1", "--poses=2", "--workers=1")
    first = call(people, *flags, "--sheet", tmp_path / "sheet.png")
    assert (first.returncode, first.stderr) == (0, "")
    assert "6 photos of 3 rendered people" in first.stdout
    assert Image.open(tmp_path / "sheet.png").size == (64 * 4, 128 * 2)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert call(people, *flags).stdout == f"{out}: exists already\n"
    typo = call(people, *flags, "--sheet=sheet.gif")
    assert (typo.returncode, "does not end in one of .jpg, .png" in typo.stderr) == (2, True)
    other = call(people, *flags, "--seed=1")
    assert other.returncode == 2
    assert "rendered with other settings" in other.stderr
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*")}

    (out / "market-pairs-test.csv").unlink()  # as after a run that was stopped
    own = "from,to\n" + (out / "market-pairs-train.csv").read_text().splitlines()[1] + "\n"
    (out / "market-pairs-train.csv").write_text(own)
    gone = next((out / "train").iterdir())
    gone.unlink()
    assert call(people, *flags).returncode == 0
    assert len(read_pairs(out / "market-pairs-test.csv")) == 2
    assert gone.exists()
    assert (out / "market-pairs-train.csv").read_text() == own


def test_command_refuses_a_folder_with_other_files(call, monkeypatch, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["data.synthetic", "--out", str(tmp_path / "mine")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("data.synthetic", run_name="__main__")
    assert ended.value.code == 2
    assert "not empty" in capsys.readouterr().err
    (tmp_path / "mine/synthetic.json").write_text("{")
    assert "cannot be read" in call(people, "--out", tmp_path / "mine").stderr
