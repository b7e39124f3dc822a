"""The csv files: what real ones contain, and every way in which they can be wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

from data.pairs import (
    Pair,
    read_columns,
    read_keypoints,
    read_pairs,
    result_name,
    result_names,
    result_stem,
    write_keypoints,
    write_pairs,
)
from scripts import check_dataset
from tests import helpers
from tests.helpers import train_flags
from util.errors import UserError

KEYPOINTS = np.stack([np.arange(18), np.arange(18) * 2], 1)
LIST = str(list(range(18)))
HEADER = "name:keypoints_y:keypoints_x"


@pytest.mark.parametrize("separator", [":", ": "])
def test_read_keypoints_distinguishes_missing_joints_from_joints_outside(separator, tmp_path):
    """Both separators; -1 is missing, other numbers outside the photo are not."""
    keypoints = KEYPOINTS.copy()
    keypoints[3] = (-1, 50)
    keypoints[4] = (-31, 205)
    all_missing = np.full((18, 2), -1)
    helpers.write_keypoints(
        tmp_path / "k.csv", {"-1_c5s3_086412_11.jpg": keypoints, "all_missing.jpg": all_missing}, separator
    )
    read = read_keypoints(tmp_path / "k.csv")
    assert list(read) == ["-1_c5s3_086412_11.jpg", "all_missing.jpg"]
    joints = read["-1_c5s3_086412_11.jpg"]
    assert joints.dtype == np.float32
    assert np.isnan(joints[3]).all()
    assert joints[4].tolist() == [-31, 205]
    assert joints[5].tolist() == [5, 10]
    assert np.isnan(read["all_missing.jpg"]).all()


def test_read_keypoints_accepts_fractions_and_exponents(tmp_path):
    """Numbers with a fraction or an exponent are numbers too."""
    (tmp_path / "k.csv").write_text(f"{HEADER}\na.jpg:[0.5, 1e1, {', '.join(['-1'] * 16)}]:[{', '.join(['2'] * 18)}]\n")
    joints = read_keypoints(tmp_path / "k.csv")["a.jpg"]
    assert joints[:2].tolist() == [[0.5, 2.0], [10.0, 2.0]]
    assert np.isnan(joints[2:]).all()


def test_read_pairs_keeps_the_order_and_skips_blank_lines(tmp_path):
    (tmp_path / "p.csv").write_text("from,to\nb.jpg,a.jpg\n\na.jpg,b.jpg\n")
    assert read_pairs(tmp_path / "p.csv") == [Pair("b.jpg", "a.jpg"), Pair("a.jpg", "b.jpg")]


def test_read_pairs_finds_columns_by_name(tmp_path):
    (tmp_path / "p.csv").write_text("\ufeffid,to,from\n7,t.jpg,s.jpg\n", encoding="utf-8")
    assert read_pairs(tmp_path / "p.csv") == [Pair("s.jpg", "t.jpg")]


def test_write_pairs_quotes_names_that_need_it(tmp_path):
    pairs = [("a, b.jpg", 'say "c".jpg'), ("人物.jpg", "é.jpg")]
    write_pairs(tmp_path / "p.csv", pairs)
    assert read_pairs(tmp_path / "p.csv") == pairs


def test_write_keypoints_is_read_back_exactly(tmp_path):
    """Also a name with the separator in it, and joints that are missing or have a fraction."""
    keypoints = KEYPOINTS.astype(np.float32)
    keypoints[3], keypoints[4] = np.nan, (0.5, -31)
    write_keypoints(tmp_path / "k.csv", {"x/a: b.jpg": keypoints})
    assert (tmp_path / "k.csv").read_text().splitlines()[0] == HEADER
    read = read_keypoints(tmp_path / "k.csv")
    np.testing.assert_array_equal(read["x/a: b.jpg"], keypoints)


@pytest.mark.parametrize("ending", ["", "\n"])
def test_read_pairs_counts_rows_by_lines(ending, tmp_path):
    """Every bad row is listed with its line in the file, wherever blank lines and quoted line breaks are."""
    rows = ["from,to", "", "a.jpg,b.jpg,c.jpg", '"a\nb.jpg",b.jpg', "a.jpg", "a.jpg,", "a.jpg,../b.jpg"]
    (tmp_path / "p.csv").write_text("\n".join(rows) + ending)
    with pytest.raises(UserError) as caught:
        read_pairs(tmp_path / "p.csv")
    assert [line.split(", ", 1)[1] for line in str(caught.value).splitlines()[1:]] == [
        "row 3: 3 columns, expected 2",
        "row 6: 1 columns, expected 2",
        "row 7: empty photo name",
        "row 8: '../b.jpg' points outside the photo folder",
    ]


@pytest.mark.parametrize("first", ["a.jpg,b.jpg", "a.jpg,b.jpg,7,8"])
def test_read_pairs_rejects_a_long_row_wherever_it_is(first, tmp_path):
    (tmp_path / "p.csv").write_text(f"from,to\n{first}\na.jpg,b.jpg,c.jpg\n")
    with pytest.raises(UserError, match="row 3: 3 columns, expected 2") as caught:
        read_pairs(tmp_path / "p.csv")
    assert ("row 2: 4 columns" in str(caught.value)) == (first != "a.jpg,b.jpg")


def test_read_pairs_rejects_a_short_row_that_lacks_another_column(tmp_path):
    """An empty cell in a column that is not read is allowed, a row without that cell is not."""
    (tmp_path / "p.csv").write_text("from,to,comment\na.jpg,b.jpg,\n")
    assert read_pairs(tmp_path / "p.csv") == [Pair("a.jpg", "b.jpg")]
    (tmp_path / "p.csv").write_text("from,to,comment\na.jpg,b.jpg,\na.jpg,b.jpg\n")
    with pytest.raises(UserError, match="row 3: 2 columns, expected 3"):
        read_pairs(tmp_path / "p.csv")


def test_read_pairs_keeps_names_that_pandas_takes_for_missing_values(tmp_path):
    (tmp_path / "p.csv").write_text("from,to\nNA,007\nnan,1e3\n")
    assert read_pairs(tmp_path / "p.csv") == [Pair("NA", "007"), Pair("nan", "1e3")]


def test_read_columns_gives_text(tmp_path):
    (tmp_path / "k.csv").write_text(f"{HEADER}:person\na.jpg:{LIST}:{LIST}: 007 \nb.jpg:{LIST}:{LIST}:\n")
    table = read_columns(tmp_path / "k.csv", ("name", "person"))
    assert table.to_numpy().tolist() == [["a.jpg", "007"], ["b.jpg", ""]]
    with pytest.raises(UserError, match="who missing in"):
        read_columns(tmp_path / "k.csv", ("name", "who"))


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
        ("from,to\n12:30.jpg,b.jpg\n", "row 2: '12:30.jpg' has a ':', as drives of Windows have; rename the photo"),
        ("from,to\n,b.jpg\n", "row 2: empty photo name"),
    ],
)
def test_read_pairs_reports_bad_content(content, message, tmp_path):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(UserError, match="p.csv") as caught:
        read_pairs(tmp_path / "p.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"a.jpg:{LIST}:{LIST[:-5]}]", "row 3: a.jpg: expected a list of 18 numbers"),
        (f"a.jpg:{LIST}:[1, 2]", "row 3: a.jpg: expected a list of 18 numbers"),
        (f"a.jpg:{LIST}:text", "row 3: a.jpg: not a list of numbers: 'text'"),
        (f"a.jpg:{LIST}:{LIST.replace('17', 'NaN')}", "row 3: a.jpg: nan is not a number of pixels"),
        (f"a.jpg:{LIST}:{LIST.replace('17', 'null')}", "row 3: a.jpg: None is not a number of pixels"),
        (f'a.jpg:{LIST}:[{", ".join(["1"] * 17)}, ""1""]', "row 3: a.jpg: "),
        (f"a.jpg:{LIST}", "row 3: 2 columns, expected 3"),
        (f"../a.jpg:{LIST}:{LIST}", "row 3: '../a.jpg' points outside"),
        (f"good.jpg:{LIST}:{LIST.replace('17', '18')}", "row 3: good.jpg came before with other keypoints"),
    ],
)
def test_read_keypoints_reports_a_bad_row_after_a_good_one(row, message, tmp_path):
    (tmp_path / "k.csv").write_text(f"name:keypoints_y:keypoints_x\ngood.jpg:{LIST}:{LIST}\n{row}\n")
    with pytest.raises(UserError, match="k.csv") as caught:
        read_keypoints(tmp_path / "k.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must name the columns name:keypoints_y:keypoints_x; name, keypoints_y, keypoints_x missing in ''"),
        (f"{HEADER}\n", "no rows below the header"),
        (f"name:keypoints_y\na.jpg:{LIST}\n", "keypoints_x missing in 'name:keypoints_y'"),
        (f"{HEADER}\n/etc/a.jpg:{LIST}:{LIST}\n", "row 2: '/etc/a.jpg' points outside the photo folder"),
        (f"{HEADER}\nx/../../a.jpg:{LIST}:{LIST}\n", "row 2: 'x/../../a.jpg' points outside the photo folder"),
        (f"{HEADER}\n:{LIST}:{LIST}\n", "row 2: empty photo name"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST[:-1]}, 18]\n", "row 2: a.jpg: expected a list of 18 numbers"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', 'Infinity')}\n", "row 2: a.jpg: inf is not a number of pixels"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '1e999')}\n", "row 2: a.jpg: inf is not a number of pixels"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '1e39')}\n", "row 2: a.jpg: 1e+39 is not a number of pixels"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '9' * 5000)}\n", "row 2: a.jpg: not a list of numbers"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', '9' * 400)}\n", "row 2: a.jpg: 9999"),
        (f"{HEADER}\na.jpg:{LIST}:{'[' * 99999}\n", "row 2: a.jpg: not a list of numbers"),
        (f"{HEADER}\n.:{LIST}:{LIST}\n", "row 2: '.' points outside the photo folder"),
        (f"{HEADER}\na.jpg:{LIST}:{LIST.replace('17', 'true')}\n", "row 2: a.jpg: True is not a number of pixels"),
        (f'{HEADER}\na.jpg:{LIST}:"{{}}"\n', "row 2: a.jpg: expected a list of 18 numbers"),
    ],
)
def test_read_keypoints_reports_bad_content(content, message, tmp_path):
    path = tmp_path / "k.csv"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_keypoints(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


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
def test_training_and_check_dataset_report_a_bad_csv(call, run, market, file, old, new, message):
    path = market / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)):
        run("train", *train_flags(market), "--name=a")
    assert not list(Path().iterdir())
    done = call(check_dataset, "--dataset_mode=market", f"--dataroot={market}")
    assert done.returncode == 2
    assert message in done.stdout


def test_read_pairs_reports_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="nothing.csv: file not found"):
        read_pairs(tmp_path / "nothing.csv")


def test_read_pairs_reports_a_file_that_is_not_text(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"from,to\n\xff\xfe\x00,b\n")
    with pytest.raises(UserError, match="cannot be read as a csv file .*; save it as UTF-8"):
        read_pairs(tmp_path / "p.csv")


def test_result_name_has_no_character_that_windows_reserves():
    assert result_name('a/b: "c"?.jpg', "d|*<>\\e.png") == "a_b_ _c___2_d_____e_vis.jpg"


@pytest.mark.parametrize(
    ("name", "stem"),
    [("con.jpg", "con_"), ("NUL.a.png", "NUL_.a"), ("com1.jpg", "com1_"), ("con/a.jpg", "con_a"),
     ("bacon.jpg", "bacon"), ("con1.jpg", "con1"), ("a.con.jpg", "a.con")],
)  # fmt: skip
def test_result_stem_is_no_device_of_windows(name, stem):
    assert result_stem(name) == stem


def test_result_names_longer_than_file_systems_allow_are_refused():
    """Before the first image is made. Names are counted in bytes."""
    longest = Pair("a" * 124 + ".jpg", "\u00e9" * 60 + ".jpg")
    assert len(result_names([longest], "jpg")[longest].encode()) == 255
    with pytest.raises(UserError, match="1 file names would be longer than 255 bytes"):
        result_names([longest, Pair("a" * 125 + ".jpg", "\u00e9" * 60 + ".jpg")], "jpg")


def test_result_name_joins_stems_as_published():
    assert result_name("a/b.c.jpg", "d.png") == "a_b.c_2_d_vis.jpg"
    assert result_name("0228_c6s3_006817_02.jpg", "x.jpg", "png") == "0228_c6s3_006817_02_2_x_vis.png"
