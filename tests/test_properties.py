"""Properties that hold for any input: text never ends in a traceback, and what is written is read back unchanged.

The inputs are drawn by hypothesis, the same ones in every run.
"""

import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data.keypoints import NUM_JOINTS, scale_keypoints
from data.pairs import (
    KEYPOINT_COLUMNS,
    MAX_COORDINATE,
    PAIR_COLUMNS,
    Pair,
    read_columns,
    read_keypoints,
    read_pairs,
    result_names,
    write_keypoints,
    write_pairs,
)  # fmt: skip
from inference.formats import read_people, write_poses
from inference.joints import COCO_17, MEDIAPIPE_33
from inference.layouts import FORMATS, WRITTEN_FORMATS
from inference.people import first_pose
from inference.photos import Photos, fits_in_csv
from inference.transfer_options import TransferOptions
from metrics.options import make_parser
from metrics.report import read_records
from options.base_options import BaseOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.arguments import count, number, positive_int, weight
from util.errors import UserError
from util.image import read_list

SIZE = (128, 64)
stable = settings(
    derandomize=True, database=None, deadline=None, max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip

# Text in which the files' own words and marks are frequent
pieces = st.sampled_from(["\n", "\r\n", ":", ",", '"', " ", "[", "]", "-1", "1e5", "a.jpg", "../b.jpg", "nan", "\ufeff",
                          str([1] * 18), *KEYPOINT_COLUMNS, *PAIR_COLUMNS])  # fmt: skip
any_text = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=3))).map("".join))
headers = st.sampled_from(["", "name:keypoints_y:keypoints_x\n", "from,to\n"])
files = st.tuples(headers, any_text).map(lambda parts: "".join(parts).encode(errors="replace")) | st.binary()
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
any_json = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner))

photo_name = (
    st.lists(st.text(st.characters(exclude_characters="/\\"), min_size=1, max_size=8), min_size=1, max_size=3)
    .map(lambda parts: "/".join(parts) + ".jpg")
    .filter(lambda name: fits_in_csv(name) and not {"..", "."} & set(name.split("/")))
)
coordinates = st.floats(-(MAX_COORDINATE - 1), MAX_COORDINATE - 1, width=32) | st.integers(-200, 200).map(float)


def poses(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """(18,2) with missing joints; no joint has a coordinate of -1, which means a missing one in the files."""
    keypoints = arrays.arrays(np.float32, (NUM_JOINTS, 2), elements=elements)
    missing = arrays.arrays(bool, (NUM_JOINTS, 1), elements=st.booleans())
    drawn = st.tuples(keypoints, missing).map(lambda both: np.where(both[1], np.float32(np.nan), both[0]))
    return drawn.filter(lambda pose: not (np.abs(pose + 1) < 1e-3).any())


def reads_or_explains(read: Callable[[Path], Any], path: Path, content: bytes) -> Any:
    """What `read` makes of the content, or None after a UserError that names the file."""
    path.write_bytes(content)
    try:
        return read(path)
    except UserError as error:
        message = str(error)
    assert path.name in message
    return None


@stable
@given(content=files)
@example(content=b"name:keypoints_y:keypoints_x\na.jpg:[" + b"9" * 5000 + b"]:[1]\n")
@example(content=b'from,to\n"a.jpg')
@example(content=b"\x00\n\x00")
@pytest.mark.parametrize("read", [read_pairs, read_keypoints, read_list, read_records, read_people])
def test_readers_explain_any_text(read, content, tmp_path):
    reads_or_explains(read, tmp_path / "any.file", content)
    reads_or_explains(read, tmp_path / "any.txt", content)


@stable
@given(content=files)
def test_read_columns_explains_any_text(content, tmp_path):
    table = reads_or_explains(lambda path: read_columns(path, ("name",)), tmp_path / "any.csv", content)
    assert table is None or list(table.columns) == ["name"]


@stable
@given(content=any_json, format_name=st.none() | st.sampled_from(list(FORMATS)))
def test_read_people_explains_any_json(content, format_name, tmp_path):
    text = json.dumps(content).encode()
    found = reads_or_explains(lambda path: read_people(path, format_name), tmp_path / "any.json", text)
    assert found is None or any(found.people.values())


@stable
@given(content=any_json)
def test_read_records_explains_any_json(content, tmp_path):
    reads_or_explains(read_records, tmp_path / "any.jsonl", json.dumps(content).encode())


@stable
@given(keypoints=st.dictionaries(photo_name, poses(coordinates), min_size=1, max_size=4))
def test_keypoints_are_read_as_they_were_written(keypoints, tmp_path):
    write_keypoints(tmp_path / "k.csv", keypoints)
    read = read_keypoints(tmp_path / "k.csv")
    assert list(read) == list(keypoints)
    for name, pose in keypoints.items():
        np.testing.assert_array_equal(read[name], pose)


@stable
@given(pairs=st.lists(st.tuples(photo_name, photo_name), min_size=1, max_size=6))
def test_pairs_are_read_as_they_were_written(pairs, tmp_path):
    write_pairs(tmp_path / "p.csv", pairs)
    assert read_pairs(tmp_path / "p.csv") == pairs


@stable
@given(pose=poses(st.floats(3, 63, width=32)))
@pytest.mark.parametrize("format_name", WRITTEN_FORMATS)
def test_poses_are_read_as_they_were_written(format_name, pose, tmp_path):
    """COCO and MediaPipe have no neck: it is the middle of the shoulders."""
    assume(not np.isnan(pose[[0, 2]]).all())
    expected = pose.copy()
    if format_name in ("coco", "mediapipe"):
        assert "neck" not in {*COCO_17, *MEDIAPIPE_33}
        expected[1] = (pose[2] + pose[5]) / 2
    path = tmp_path / ("a.csv" if format_name == "patn" else "a.json")
    write_poses(path, {"a.jpg": pose}, format_name, Photos(size=SIZE))
    (people,) = read_people(path, format_name, Photos(size=SIZE)).people.values()
    np.testing.assert_allclose(first_pose(people), expected, atol=0.002)


lengths = st.tuples(st.integers(1, 600), st.integers(1, 600))


@stable
@given(pose=poses(st.floats(-100, 600, width=32)), size=lengths, other=lengths)
def test_scale_keypoints_keeps_missing_joints_and_stays_inside(pose, size, other):
    """Whole pixels, the same joints, the same order; a joint inside one image is inside the other."""
    scaled = scale_keypoints(torch.from_numpy(pose), size, other).numpy()
    np.testing.assert_array_equal(np.isnan(scaled), np.isnan(pose))
    np.testing.assert_array_equal(scaled, np.trunc(scaled))
    inside = ((pose >= 0) & (pose < size)).all(axis=1)
    assert ((scaled[inside] >= 0) & (scaled[inside] < other)).all()
    for axis in range(2):
        order = np.argsort(pose[:, axis], kind="stable")
        assert (np.diff(scaled[order, axis][~np.isnan(pose[order, axis])]) >= 0).all()


@stable
@given(pose=poses(st.integers(-500, 500).map(float)), size=lengths, factor=st.integers(1, 8))
def test_scale_keypoints_there_and_back_is_the_same(pose, size, factor):
    larger = (size[0] * factor, size[1] * factor)
    there = scale_keypoints(torch.from_numpy(pose), size, larger)
    np.testing.assert_array_equal(scale_keypoints(there, larger, size).numpy(), pose)


@stable
@given(pairs=st.lists(st.builds(Pair, photo_name, photo_name), max_size=8))
def test_result_names_are_distinct_files_of_one_folder_or_an_error(pairs):
    try:
        names = result_names(pairs, "png")
    except UserError:
        return
    assert set(names) == set(pairs)
    assert len(set(names.values())) == len(names)
    for name in names.values():
        assert name.endswith("_vis.png")
        assert "/" not in name
        assert "\\" not in name


COMMANDS: dict[str, BaseOptions] = {"train": TrainOptions(), "test": TestOptions(), "transfer": TransferOptions()}
FLAGS = sorted({flag for options in COMMANDS.values() for flag in options.parser([])._option_string_actions})
numbers = (st.integers() | st.floats()).map(str)
word = st.sampled_from(FLAGS) | any_text.map(lambda text: text.replace("\x00", "")) | numbers
flag_with_value = st.tuples(st.sampled_from(FLAGS), st.text() | numbers).map("=".join)
command_lines = st.lists(word | flag_with_value | st.sampled_from(["--name=a", "--dataset_mode=market"]), max_size=6)


def status_of(parse: Callable[[list[str]], object], argv: list[str]) -> int | None:
    """The exit status with which parsing ends, None if the options are accepted."""
    try:
        parse(argv)
    except SystemExit as end:
        return end.code
    return None


@stable
@given(argv=command_lines)
@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_any_words_are_parsed_or_status_2(command, argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = status_of(COMMANDS[command].parse, argv)
    assert status == 2 or status is None or {"-h", "--help"} & set(argv)
    assert status != 2 or ": error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@stable
@given(argv=st.lists(st.sampled_from(sorted(make_parser()._option_string_actions)) | any_text | numbers, max_size=6))
def test_options_of_the_evaluation_are_parsed_or_status_2(argv, capsys):
    status = status_of(make_parser().parse_args, argv)
    assert status == 2 or status is None or {"-h", "--help"} & set(argv)
    assert status != 2 or ": error: " in capsys.readouterr().err


@stable
@given(text=any_text | numbers)
@pytest.mark.parametrize("kind", [positive_int, count, weight, number(int, 0, 2**32), number(float, 0.01)])
def test_numbers_of_any_text_are_finite_or_refused(kind, text):
    try:
        value = kind(text)
    except ArgumentTypeError:
        return
    assert math.isfinite(value)
    assert value >= 0
