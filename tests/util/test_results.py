"""The results folder of test.py: the page, going on after a stop, and what happens when writing fails."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.pairs import Pair, read_pairs, result_name, result_names
from tests.conftest import COMMON, TINY_G, train_flags
from util.errors import UserError
from util.results import ROWS_A_PAGE, STRIP_HEIGHT, Results

RUN = {"made_with": {"weights": "abc", "precision": "fp32"}}


def picture(color: str, size: tuple[int, int] = (64, 128)) -> Image.Image:
    return Image.new("RGB", size, color)


def add(results: Results, name: str, color: str = "red") -> None:
    joints = np.full((18, 2), np.nan)
    joints[2:4] = (10, 5), (100, 60)
    results.add(name, picture(color), [picture("green", (128, 128)), picture("blue", (128, 128))], [joints] * 2)


def page_data(folder: Path) -> dict:
    html = (folder / "index.html").read_text()
    return json.loads(re.search(r'<script[^>]*id="data"[^>]*>(.*?)</script>', html, re.DOTALL)[1])


def test_strip(tmp_path):
    """Source, its skeleton, target's skeleton, generated, target: thumbnails of the stored shape."""
    with Results(tmp_path, RUN, carry_on=False) as results:
        add(results, "a_2_b_vis.png")
    strip = np.asarray(Image.open(tmp_path / "strips/a_2_b_vis.jpg")).astype(int)
    assert strip.shape == (STRIP_HEIGHT, 5 * STRIP_HEIGHT // 2, 3)
    cells = strip.reshape(STRIP_HEIGHT, 5, -1, 3).transpose(1, 0, 2, 3)
    means = cells.mean((1, 2))
    np.testing.assert_allclose(means[[0, 3, 4]], [(0, 128, 0), (254, 0, 0), (0, 0, 254)], atol=12)
    for skeleton in cells[1:3]:  # the joints (10,5) and (100,60) of a 128 x 128 picture, in a cell of 128 x 64
        bright = np.argwhere(skeleton.max(-1) > 100)
        np.testing.assert_allclose([bright.min(0), bright.max(0)], [(10, 2), (100, 30)], atol=4)


def test_names_are_data_not_html(tmp_path):
    nasty = "</script><img src=x onerror=alert(1)>.jpg"
    name = "x_2_y_vis.jpg"
    with Results(tmp_path, RUN, carry_on=False) as results:
        add(results, name)
    results.write_page("<b>&run", [(nasty, "人物 é.jpg", name), ("no", "such", "result_vis.jpg")])
    html = (tmp_path / "index.html").read_text()
    assert "<img src=x" not in html
    assert "<b>&run" not in html
    assert page_data(tmp_path) == {"rows": [[nasty, "人物 é.jpg", name]], "size": ROWS_A_PAGE}


def test_a_write_that_fails_is_an_error(tmp_path):
    (tmp_path / "a_vis.jpg").mkdir()
    with pytest.raises(UserError, match="a_vis.jpg: could not be written"), Results(tmp_path, RUN, False) as results:
        add(results, "a_vis.jpg")


def test_memory_is_bounded(tmp_path):
    """However fast results come, few wait to be written."""
    with Results(tmp_path, RUN, False, threads=1) as results:
        for number in range(60):
            add(results, f"{number}_vis.jpg")
            assert len(results._waiting) <= 16
    assert len(list(tmp_path.glob("*_vis.jpg"))) == 60


@pytest.fixture
def drawn(run, market):
    """Flags of a test run, its folder, and its result names in csv order."""
    run("train", *train_flags(market), "--name=a")
    flags = [*COMMON, *TINY_G, "--name=a", f"--dataroot={market}"]
    run("test", *flags)
    return flags, Path("results"), [result_name(*pair) for pair in read_pairs(market / "market-pairs-test.csv")]


def test_a_stopped_run_goes_on(run, drawn, capsys):
    flags, folder, names = drawn
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / names[1]).unlink()
    (folder / "strips" / f"{Path(names[2]).stem}.jpg").unlink()
    os.utime(folder / names[3], (1, 1))  # of an earlier run
    kept = names[4:] + names[:1]
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    run("test", *flags, "--continue_test")
    assert f"{len(names) - 3} of {len(names)} pairs are drawn already" in capsys.readouterr().out
    assert times == {name: (folder / name).stat().st_mtime_ns for name in kept}
    assert before == {name: (folder / name).read_bytes() for name in names}
    assert [row[2] for row in page_data(folder)["rows"]] == names

    run("test", *flags, "--continue_test")  # nothing left to do
    run("test", *flags)  # without the flag all are drawn anew
    assert not {t for name in names if (t := (folder / name).stat().st_mtime_ns) in times.values()}


def test_other_weights_do_not_go_on(run, drawn, market):
    flags, folder, _ = drawn
    run("train", *train_flags(market), "--name=b", "--seed=3")
    with pytest.raises(UserError, match="results was drawn with other weights; leave"):
        run("test", *flags, "--name=b", "--continue_test")
    with pytest.raises(UserError, match="drawn with other precision"):
        run("test", *flags, "--precision=bf16", "--continue_test")
    (folder / "test_run.json").write_text("{}")
    with pytest.raises(UserError, match="test_run.json cannot be read"):
        run("test", *flags, "--continue_test")


def test_other_data_do_not_go_on(run, drawn, market, tmp_path):
    """The same names elsewhere, or other keypoints, are other results."""
    flags, _, _ = drawn
    shutil.copytree(market, tmp_path / "copy")
    with pytest.raises(UserError, match="drawn with other photos"):
        run("test", *flags, f"--dataroot={tmp_path / 'copy'}", "--continue_test")
    keypoints = market / "market-annotation-test.csv"
    keypoints.write_text(keypoints.read_text() + "\n")
    with pytest.raises(UserError, match="drawn with other csv files"):
        run("test", *flags, "--continue_test")


def test_rows_that_come_twice(run, drawn, market, capsys):
    flags, folder, names = drawn
    pairs = market / "market-pairs-test.csv"
    pairs.write_text(pairs.read_text() + "\n".join(pairs.read_text().splitlines()[1:]) + "\n")
    run("test", *flags, "--batchSize=8")
    assert f"{len(names)} pairs drawn" in capsys.readouterr().out
    assert [row[2] for row in page_data(folder)["rows"]] == names


def test_two_pairs_with_one_result_name():
    with pytest.raises(UserError, match="s_2_x_vis.jpg would be the result of two pairs, .*'x.jpg'.*'x.png'"):
        result_names([Pair("s.jpg", "x.jpg"), Pair("s.jpg", "y.jpg"), Pair("s.jpg", "x.png")], "jpg")
