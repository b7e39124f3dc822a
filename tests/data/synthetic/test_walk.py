"""python -m data.synthetic.walk: a data set of one walking person."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.pairs import read_keypoints, read_pairs
from data.synthetic import walk as walk_command


def test_walk_writes_the_same_data_set_for_the_same_flags(tmp_path, call):
    """Photos, keypoints and pairs belong together, and poses differ from frame to frame."""
    flags = ["--dataset_mode=market", "--frames=3", "--yaw=0", "--seed=2"]
    for name in ("a", "b"):
        assert call(walk_command, *flags, "--out", tmp_path / name).returncode == 0
    photos = sorted((tmp_path / "a" / "test").iterdir())
    names = [photo.name for photo in photos]
    assert names == [f"walk_{number:04d}.jpg" for number in (1, 2, 3)]
    assert {Image.open(photo).size for photo in photos} == {(64, 128)}
    keypoints = read_keypoints(tmp_path / "a" / "market-annotation-test.csv")
    assert list(keypoints) == names
    assert not np.array_equal(keypoints[names[0]], keypoints[names[1]], equal_nan=True)
    assert read_pairs(tmp_path / "a" / "market-pairs-test.csv") == [(names[0], name) for name in names]
    for path in filter(Path.is_file, (tmp_path / "a").rglob("*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    again = call(walk_command, *flags, "--out", tmp_path / "a")
    assert again.returncode == 2
    assert "exists already" in again.stderr
