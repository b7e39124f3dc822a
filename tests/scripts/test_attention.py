"""scripts/attention.py from end to end."""

import numpy as np
import pytest
from PIL import Image

from data.pairs import write_keypoints
from inference.attention import attend, draw_panel
from inference.cached_source import CachedSource
from scripts import attention as script
from tests.helpers import TINY_G
from tests.inference.tiny_transfer import keypoints_of, load_tiny, tiny_walk, write_tiny


@pytest.fixture
def flags(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    people = tiny_walk()
    Image.fromarray(people[0].pixels).save("a.png")
    names = [f"{letter}.png" for letter in "ab"]
    write_keypoints(tmp_path / "poses.csv", dict(zip(names, keypoints_of(people)[[0, 3]])))
    run = ["--gpu_ids=-1", "--dataset_mode=market", "--name=tiny", f"--checkpoints_dir={tmp_path}", *TINY_G]
    poses = ["--source_pose=csv:a.png", "--pose=csv:b.png", "--keypoints_csv=poses.csv"]
    return [*run, "--source=a.png", *poses, "--out=panel.png"]


def test_attention_writes_the_panel_that_draw_panel_draws(call, flags, tmp_path):
    done = call(script, *flags, "--points", "20,40", "30,64", "--head=1", "--flow")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "panel.png")
    people = tiny_walk()
    image, (source_pose, _, _, target) = Image.fromarray(people[0].pixels), keypoints_of(people)[:4]
    attention = attend(CachedSource(load_tiny(tmp_path), image, source_pose), target)
    expected = draw_panel(image, target, attention, [(20, 40), (30, 64)], head=1, flow=True)
    np.testing.assert_array_equal(Image.open("panel.png"), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--points", "64,40"], "--points 64,40: outside the image of 64 x 128 pixels"),
        (["--points", "a"], "'a' is not a point X,Y such as 30,64"),
        ([], "--points required"),
        (["--points", "1,2", "--ttb=1"], "--ttb 1: this network has 1, numbered from 0"),
        (["--points", "1,2", "--head=2"], "--head 2: this network has 2, numbered from 0"),
        (["--points", "1,2", "--out=x.gif"], "--out: 'x.gif' does not end in one of .jpg, .png"),
        (["--points", "1,2", "--pose", "poses.csv"], "--pose poses.csv: there are 2 poses; give one"),
    ],
)
def test_attention_bad_flags_are_one_line(call, flags, changes, message):
    done = call(script, *flags, *changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
