"""The results folder of test.py: images, strips, page, resuming, and writes that fail."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.pairs import Pair, read_pairs, result_name, result_names
from tests.helpers import COMMON, TINY_G, save_random_generator
from util.errors import UserError
from util.results import PENDING_PER_THREAD, RUN_FILE, STRIP_HEIGHT, Results

RUN = {"made_with": {"weights": "abc", "precision": "fp32"}}


PAIR = ("a.jpg", "b.jpg")
NAME = "a_2_b_vis.jpg"


def solid(color: tuple[int, int, int], size: tuple[int, int]) -> Tensor:
    """uint8 (1,3,*size)."""
    return torch.tensor(color, dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, *size)


def batch_of(source: str, target: str) -> dict:
    """What the loader gives for one pair of a data set with a network size of 128 x 128."""
    keypoints = torch.full((1, 18, 2), torch.nan)
    keypoints[0, 2:4] = torch.tensor([[10.0, 5.0], [100.0, 60.0]])
    return {
        "source_name": [source], "source_image": solid((0, 128, 0), (128, 128)), "source_keypoints": keypoints,
        "target_name": [target], "target_image": solid((0, 0, 255), (128, 128)), "target_keypoints": keypoints,
    }  # fmt: skip


def add(results: Results, pair: tuple[str, str]) -> None:
    results.add(batch_of(*pair), solid((255, 0, 0), (128, 64)))


def page_rows(folder: Path) -> list[list[str]]:
    html = (folder / "index.html").read_text()
    return json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', html, re.DOTALL)[1])["rows"]


def test_add_writes_image_and_strip(tmp_path):
    """Strip: source, its skeleton, target's skeleton, generated, target: thumbnails in the generated image's shape."""
    with Results(tmp_path, {PAIR: "a_2_b_vis.png"}, RUN, resume=False) as results:
        add(results, PAIR)
    np.testing.assert_array_equal(np.unique(Image.open(tmp_path / "a_2_b_vis.png"), axis=1), [[[255, 0, 0]]] * 128)
    strip = np.asarray(Image.open(tmp_path / "strips/a_2_b_vis.jpg")).astype(int)
    assert strip.shape == (STRIP_HEIGHT, 5 * STRIP_HEIGHT // 2, 3)
    cells = strip.reshape(STRIP_HEIGHT, 5, -1, 3).transpose(1, 0, 2, 3)
    means = cells.mean((1, 2))
    np.testing.assert_allclose(means[[0, 3, 4]], [(0, 128, 0), (254, 0, 0), (0, 0, 254)], atol=12)
    for skeleton in cells[1:3]:  # the joints (10,5) and (100,60) of a 128 x 128 image, in a cell of 128 x 64
        bright = np.argwhere(skeleton.max(-1) > 100)
        np.testing.assert_allclose([bright.min(0), bright.max(0)], [(10, 2), (100, 30)], atol=4)


def test_write_page_lists_finished_results(tmp_path):
    with Results(tmp_path, {PAIR: NAME, ("no", "such"): "no_2_such_vis.jpg"}, RUN, resume=False) as results:
        add(results, PAIR)
    assert results.missing_pairs() == [("no", "such")]
    assert results.write_page("title") == tmp_path / "index.html"
    assert page_rows(tmp_path) == [[*PAIR, NAME]]


def test_write_that_fails_is_a_user_error(tmp_path):
    (tmp_path / NAME).mkdir()
    with (
        pytest.raises(UserError, match="a_2_b_vis.jpg: could not be written"),
        Results(tmp_path, {PAIR: NAME}, RUN, resume=False) as results,
    ):
        add(results, PAIR)


def test_add_bounds_the_images_in_memory(tmp_path, monkeypatch):
    """However fast images come, few wait to be written."""
    monkeypatch.setattr("util.results.WRITING_THREADS", 1)
    names = {("a", str(number)): f"{number}_vis.jpg" for number in range(60)}
    with Results(tmp_path, names, RUN, resume=False) as results:
        for pair in names:
            add(results, pair)
            assert len(results._pending) <= PENDING_PER_THREAD
    assert len(list(tmp_path.glob("*_vis.jpg"))) == 60


def test_resume_keeps_finished_results(tmp_path):
    names = {("a", letter): f"{letter}_vis.jpg" for letter in "bcde"}
    with Results(tmp_path, names, RUN, resume=False) as results:
        for pair in names:
            add(results, pair)
    (tmp_path / "c_vis.jpg").unlink()
    (tmp_path / "strips/d_vis.jpg").unlink()
    os.utime(tmp_path / "e_vis.jpg", (1, 1))  # of an earlier run
    assert Results(tmp_path, names, RUN, resume=True).missing_pairs() == [("a", letter) for letter in "cde"]


@pytest.mark.parametrize("record", [None, "{}", "[]", "text"])
def test_resume_without_a_readable_record_is_a_user_error(tmp_path, record):
    if record:
        (tmp_path / RUN_FILE).write_text(record)
    with pytest.raises(UserError, match="test_run.json cannot be read .*; leave the flag out"):
        Results(tmp_path, {PAIR: NAME}, RUN, resume=True)


def test_record_says_whether_all_results_are_finished(tmp_path):
    """Its time stays that of the start, by which results of earlier runs are told."""
    results = Results(tmp_path, {PAIR: NAME, ("c.jpg", "d.jpg"): "c_2_d_vis.jpg"}, RUN, resume=False)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert (record["pairs"], record["finished"], record["made_with"]) == (2, False, RUN["made_with"])
    started = (tmp_path / RUN_FILE).stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt), results:
        raise KeyboardInterrupt
    assert json.loads((tmp_path / RUN_FILE).read_text()) == record
    with results:
        add(results, PAIR)
    assert json.loads((tmp_path / RUN_FILE).read_text()) == {**record, "finished": True}
    assert (tmp_path / RUN_FILE).stat().st_mtime_ns == started
    with Results(tmp_path, {PAIR: NAME}, RUN, resume=True):  # of fewer pairs
        pass
    assert json.loads((tmp_path / RUN_FILE).read_text()) == {**record, "finished": True}


@pytest.fixture
def tested(run, market):
    """Flags of a test run, its folder, and its result names in csv order."""
    save_random_generator("a")
    flags = [*COMMON, *TINY_G, "--name=a", f"--dataroot={market}"]
    run("test", *flags)
    return flags, Path("results"), [result_name(*pair) for pair in read_pairs(market / "market-pairs-test.csv")]


def test_continue_test_generates_missing_images_only(run, tested, capsys):
    flags, folder, names = tested
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / names[1]).unlink()
    (folder / "strips" / f"{Path(names[2]).stem}.jpg").unlink()
    os.utime(folder / names[3], (1, 1))  # of an earlier run
    kept = names[4:] + names[:1]
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    run("test", *flags, "--continue_test")
    assert f"{len(names) - 3} of {len(names)} images have already been generated" in capsys.readouterr().out
    assert times == {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert before == {name: (folder / name).read_bytes() for name in names}
    assert [row[2] for row in page_rows(folder)] == names

    run("test", *flags, "--continue_test")  # nothing left to do
    run("test", *flags)  # without the flag all are generated again
    assert not {t for name in names if (t := (folder / name).stat().st_mtime_ns) in times.values()}


def test_continue_test_rejects_other_weights_or_precision(run, tested, market):
    flags, _, _ = tested
    save_random_generator("b", seed=3)
    with pytest.raises(UserError, match="results was generated with other weights; leave"):
        run("test", *flags, "--name=b", "--continue_test")
    with pytest.raises(UserError, match="generated with other precision"):
        run("test", *flags, "--precision=bf16", "--continue_test")
    with pytest.raises(UserError, match="generated with other nhead, ptm_values"):  # which fit the same weights
        run("test", *flags, "--nhead=4", "--ptm_values=f_ss", "--continue_test")


def test_continue_test_accepts_a_record_of_earlier_versions(run, tested, capsys):
    flags, folder, _ = tested
    record = json.loads((folder / RUN_FILE).read_text())
    for name in ("nhead", "ptm_values"):
        del record["made_with"][name]
    (folder / RUN_FILE).write_text(json.dumps(record))
    with pytest.raises(UserError, match="generated with other nhead"):
        run("test", *flags, "--nhead=4", "--continue_test")
    run("test", *flags, "--continue_test")


def test_continue_test_rejects_other_photos_or_keypoints(run, tested, market, tmp_path):
    """The same names elsewhere, or other keypoints, are other results."""
    flags, _, _ = tested
    shutil.copytree(market, tmp_path / "copy")
    with pytest.raises(UserError, match="generated with other photos"):
        run("test", *flags, f"--dataroot={tmp_path / 'copy'}", "--continue_test")
    keypoints = market / "market-annotation-test.csv"
    keypoints.write_text(keypoints.read_text() + "\n")
    with pytest.raises(UserError, match="generated with other csv files"):
        run("test", *flags, "--continue_test")


def test_repeated_pair_is_generated_once(run, tested, market, capsys):
    flags, folder, names = tested
    pairs = market / "market-pairs-test.csv"
    pairs.write_text(pairs.read_text() + "\n".join(pairs.read_text().splitlines()[1:]) + "\n")
    run("test", *flags, "--batchSize=8")
    assert f"{len(names)} images generated" in capsys.readouterr().out
    assert [row[2] for row in page_rows(folder)] == names


def test_result_names_rejects_two_pairs_with_one_name():
    with pytest.raises(UserError, match="s_2_x_vis.jpg would be the result of two pairs, .*'x.jpg'.*'x.png'"):
        result_names([Pair("s.jpg", "x.jpg"), Pair("s.jpg", "y.jpg"), Pair("s.jpg", "x.png")], "jpg")
