"""Bad input of a user's own data set, as far as tests/test_pairs.py has it not: one clear message each."""

import re
from pathlib import Path

import numpy as np
import pytest

from data.pairs import read_keypoints, read_pairs, write_pairs
from scripts import check_dataset
from tests.conftest import train_flags
from util.errors import UserError

LIST = str(list(range(18)))
HEADER = "name:keypoints_y:keypoints_x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must name the columns name:keypoints_y:keypoints_x; name, keypoints_y, keypoints_x missing in ''"),
        (f"{HEADER}\n", "no rows below the header"),
        (f"name:keypoints_y\na.jpg:{LIST}\n", "keypoints_x missing in 'name:keypoints_y'"),
        (f"{HEADER}\n/etc/a.jpg:{LIST}:{LIST}\n", "row 2: '/etc/a.jpg' points outside the photo folder"),
        (f"{HEADER}\nx/../../a.jpg:{LIST}:{LIST}\n", "row 2: 'x/../../a.jpg' points outside the photo folder"),
        (f"{HEADER}\n:{LIST}:{LIST}\n", "row 2: empty photo name"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST[:-1]}, 18]\n", "row 2 (a.jpg): expected a list of 18 numbers"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', 'Infinity')}\n", "row 2 (a.jpg): inf is not a finite number"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '1e999')}\n", "row 2 (a.jpg): inf is not a finite number"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '1e39')}\n", "row 2 (a.jpg): 1e+39 is not a finite number"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '9' * 5000)}\n", "row 2 (a.jpg): not a list of numbers"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '9' * 400)}\n", "row 2 (a.jpg): 9999"),
        (f"{HEADER}\na.jpg:{LIST}:{'[' * 99999}\n", "row 2 (a.jpg): not a list of numbers"),
        (f"{HEADER}\n.:{LIST}:{LIST}\n", "row 2: '.' points outside the photo folder"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', 'true')}\n", "row 2 (a.jpg): True is not a finite number"),
        (f'{HEADER}\na.jpg:{LIST}:"{{}}"\n', "row 2 (a.jpg): expected a list of 18 numbers"),
    ],
)
def test_keypoints(content, message, tmp_path):
    path = tmp_path / "k.csv"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_keypoints(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_names_that_need_quotes(tmp_path):
    pairs = [("a, b.jpg", 'say "c".jpg'), ("人物.jpg", "é.jpg")]
    write_pairs(tmp_path / "p.csv", pairs)
    assert read_pairs(tmp_path / "p.csv") == pairs


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("market-pairs-train.csv", "0000_c1s1", "../../0000_c1s1", "points outside the photo folder"),
        ("market-pairs-train.csv", "from,to", "from;to", "from, to missing in 'from;to'"),
        ("market-annotation-train.csv", "[", "[NaN, ", "expected a list of 18 numbers"),
        ("market-annotation-train.csv", "[", "[null, ", "expected a list of 18 numbers"),
        ("market-annotation-train.csv", "[", "[text, ", "not a list of numbers"),
    ],
)
def test_training_and_check_report_it(call, run, market, file, old, new, message):
    path = market / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)):
        run("train", *train_flags(market), "--name=a")
    assert not list(Path().iterdir())
    done = call(check_dataset, "--dataset_mode=market", f"--dataroot={market}")
    assert done.returncode == 2
    assert message in done.stdout


def test_keypoints_are_exact(tmp_path):
    """Numbers with a fraction or an exponent are numbers too."""
    (tmp_path / "k.csv").write_text(f"{HEADER}\na.jpg:[0.5, 1e1, {', '.join(['-1'] * 16)}]:[{', '.join(['2'] * 18)}]\n")
    joints = read_keypoints(tmp_path / "k.csv")["a.jpg"]
    assert joints[:2].tolist() == [[0.5, 2.0], [10.0, 2.0]]
    assert np.isnan(joints[2:]).all()
