"""JSON of any shape as a pose file: a result, or one clear error that names the file, never another exception."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from data.pairs import read_keypoints
from inference.photo_transfer import frame_poses
from inference.sources import KeypointCsvs, find_people, open_poses
from scripts import convert_poses
from tests.inference.pose_files import FIXTURES
from tests.inference.test_layouts import LAYOUTS
from util.errors import UserError

TREES = 1000
KEYS = (
    "people", "bodies", "pose_keypoints_2d", "pose_keypoints", "joints", "images", "annotations", "categories", "id",
    "image_id", "file_name", "keypoints", "keypoint_scores", "score", "width", "height", "canvas_width",
    "canvas_height", "landmarks", "pose_landmarks", "x", "y", "visibility", "visible", "instances", "instance_info",
    "a.jpg",
)  # fmt: skip
LEAVES = (
    None, True, False, 0, -1, 1, 0.5, -0.5, 17, 1e-300, 1e300, 10**400, float("nan"), float("inf"), "", "a.jpg", "..",
    "C:\\a.jpg", "a:b", "\ud800", "\x00", "1", "\n", "a" * 300,
)  # fmt: skip
VALID = [json.loads(path.read_text("utf-8-sig")) for path in sorted(FIXTURES.rglob("*.json"))]
VALID += [content for _, content in LAYOUTS.values() if not isinstance(content, str)]


def random_tree(chance: random.Random, depth: int = 0) -> Any:
    """A random JSON value: lists, often of as many numbers as formats have, and objects with their keys."""
    kind = chance.random()
    if depth > 4 or kind < 0.25:
        return chance.choice(LEAVES)
    if kind < 0.45:
        return [chance.choice((0.5, 3, 40.25, -1, chance.choice(LEAVES)))] * chance.choice(
            (2, 3, 17, 18, 33, 51, 54, 75)
        )
    if kind < 0.65:
        return [random_tree(chance, depth + 1)] * chance.choice((1, 17, 18, 33))
    if kind < 0.75:
        return [random_tree(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(KEYS): random_tree(chance, depth + 1) for _ in range(chance.randrange(5))}


def damaged(chance: random.Random) -> Any:
    """The content of a valid file in which one value, at any depth, is replaced by a random tree."""
    content = copy.deepcopy(chance.choice(VALID))
    place: Any = {"whole": content}
    key: Any = "whole"
    while isinstance(place[key], dict | list) and place[key] and chance.random() < 0.85:
        place = place[key]
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key] = random_tree(chance)
    return content


@pytest.mark.parametrize("make", [random_tree, damaged])
def test_any_json_is_converted_or_one_clear_error(make: Callable, call, tmp_path):
    """What is written is read back, without a joint less."""
    chance, statuses = random.Random(0), []
    file, out = tmp_path / "any.json", tmp_path / "out.csv"
    for number in range(TREES):
        file.write_text(json.dumps(make(chance)))
        done = call(convert_poses, file, out, "--overwrite", "--size", 64, 128)
        statuses.append(done.returncode)
        assert done.returncode == 0 or (done.returncode, done.stderr.count("\n")) == (2, 1), (number, done.stderr)
        assert done.returncode == 0 or done.stderr.startswith(f"error: {file}: "), (number, done.stderr)
        if done.returncode == 0:
            assert read_keypoints(out), number
    assert set(statuses) <= {0, 2}
    assert make is random_tree or 100 < statuses.count(0) < 900  # both ways are tried


@pytest.mark.parametrize("make", [random_tree, damaged])
def test_any_json_as_a_pose_is_framed_or_an_error(make: Callable, tmp_path):
    chance, file, framed, messages = random.Random(1), tmp_path / "any.json", 0, []
    for _ in range(TREES):
        file.write_text(json.dumps(make(chance)))
        try:
            source = open_poses(str(file), KeypointCsvs(), size=(128, 64))
            poses = frame_poses(list(find_people(source, None)), (128, 64), "market", in_stored_pixels=None)
        except UserError as error:
            messages.append(str(error))
            continue
        framed += len(poses.names)
        assert not np.isnan(poses.keypoints).all(axis=(1, 2)).any()
    assert all(message.startswith(f"{file}: ") for message in messages)
    assert make is random_tree or framed > 50
