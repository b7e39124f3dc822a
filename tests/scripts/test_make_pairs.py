"""Pairs made from keypoints by PATN's rule."""

from pathlib import Path

import numpy as np

from data.pairs import read_pairs
from scripts import make_pairs
from tests.helpers import write_keypoints

POSE = np.stack([np.arange(18) * 5, np.arange(18) * 2], 1)

HALF = np.where(np.arange(18)[:, None] == 8, -1, POSE)  # the right hip is missing

NOBODY = np.full((18, 2), -1)


def make_poses(path: Path, poses: dict[str, np.ndarray]) -> Path:
    write_keypoints(path, poses, ": ")
    return path


def test_pairs_by_patns_rule(call, tmp_path):
    names = ["0002_a.jpg", "0007_a.jpg", "0002_b.jpg", "0002_c.jpg", "-1_a.jpg", "-1_b.jpg", "0000_a.jpg", "0000_b.jpg"]
    poses = dict.fromkeys(names, POSE)
    csv = make_poses(tmp_path / "k.csv", {**poses, "0002_half.jpg": HALF, "0009_a.jpg": NOBODY, "0009_b.jpg": POSE})
    done = call(make_pairs, "--dataset_mode=market", "--keypoints", csv, "--out", tmp_path / "p.csv")
    assert (done.returncode, done.stderr) == (0, "")
    a, b, c = "0002_a.jpg", "0002_b.jpg", "0002_c.jpg"
    assert read_pairs(tmp_path / "p.csv") == [(a, b), (a, c), (b, a), (b, c), (c, a), (c, b)]
    assert done.stdout.splitlines()[1:] == [
        "4 left out as distractors (-1, 0000)",
        "2 left out because a shoulder or a hip is missing",
        "2 left out because no other photo of their identity remains",
        "6 pairs of 3 photos of 1 identities",
        f"written to {tmp_path / 'p.csv'}",
    ]


def test_fashion_pairs_are_of_one_outfit(call, tmp_path):
    same = ["fashionMENPantsid0000161101_1front.jpg", "fashionMENPantsid0000161101_3back.jpg"]
    root = tmp_path / "fashion"
    root.mkdir()
    poses = dict.fromkeys([*same, "fashionMENPantsid0000161102_1front.jpg"], POSE)
    make_poses(root / "fasion-resize-annotation-test.csv", poses)
    assert call(make_pairs, "--dataset_mode=fashion", "--dataroot", root, "--phase=test").returncode == 0
    assert read_pairs(root / "fasion-resize-pairs-test.csv") == [tuple(same), tuple(same[::-1])]


def test_identity_column_replaces_the_names_rule(call, tmp_path):
    csv, out = tmp_path / "k.csv", tmp_path / "p.csv"
    y, x = POSE.T.tolist()
    rows = {"a, 1.jpg": "anna", "b.jpg": "0000", "c.jpg": "0000", "d.jpg": "anna"}
    lines = [f"{name}:{y}:{x}:{person}" for name, person in rows.items()]
    csv.write_text("\n".join(["name:keypoints_y:keypoints_x:person", *lines]))
    flags = ("--dataset_mode=market", "--keypoints", csv, "--out", out)
    assert call(make_pairs, *flags, "--identity_column=person").returncode == 0
    anna = ("a, 1.jpg", "d.jpg")
    assert read_pairs(out) == [anna, anna[::-1], ("b.jpg", "c.jpg"), ("c.jpg", "b.jpg")]
    done = call(make_pairs, *flags, "--overwrite", "--identity_column=who")
    assert "who missing in 'name:keypoints_y:keypoints_x:person'" in done.stderr
    csv.write_text(csv.read_text().replace("anna", ""))
    done = call(make_pairs, *flags, "--overwrite", "--identity_column=person")
    assert (done.returncode, done.stderr) == (2, f"error: {csv}: 2 rows without person, such as a, 1.jpg\n")


def test_max_pairs_keeps_a_seeded_choice_in_order(call, tmp_path):
    """As many as asked for, in the order of all, the same for one seed."""
    csv = make_poses(tmp_path / "k.csv", {f"{i % 3}_{i}.jpg": POSE for i in range(15)})

    def pairs(*flags: str) -> list[tuple[str, str]]:
        call(
            make_pairs, "--dataset_mode=market", "--keypoints", csv, "--out", tmp_path / "p.csv", "--overwrite", *flags
        )
        return read_pairs(tmp_path / "p.csv")

    every = pairs()
    assert len(every) == 60 == len(pairs("--max_pairs=100"))
    chosen = pairs("--max_pairs=10")
    assert len(chosen) == 10
    assert chosen == sorted(chosen, key=every.index) == pairs("--max_pairs=10", "--seed=0")
    assert chosen != pairs("--max_pairs=10", "--seed=1")


def test_pairs_are_not_overwritten_unasked(call, tmp_path):
    csv = make_poses(tmp_path / "k.csv", {"1_a.jpg": POSE, "1_b.jpg": POSE})
    (tmp_path / "p.csv").write_text("mine")
    done = call(make_pairs, "--dataset_mode=market", "--keypoints", csv, "--out", tmp_path / "p.csv")
    assert done.returncode == 2
    assert "p.csv exists already; --overwrite replaces it" in done.stderr
    assert (tmp_path / "p.csv").read_text() == "mine"


def test_no_pairs_is_an_error(call, tmp_path):
    csv = make_poses(tmp_path / "k.csv", {"1_a.jpg": POSE, "1_b.jpg": HALF})
    done = call(make_pairs, "--dataset_mode=market", "--keypoints", csv, "--out", tmp_path / "p.csv")
    assert done.returncode == 2
    assert "no two photos of one identity with shoulders and hips" in done.stderr
    assert not (tmp_path / "p.csv").exists()


def test_column_of_the_name_is_no_identity(call, tmp_path):
    done = call(make_pairs, "--dataset_mode=market", "--dataroot", tmp_path, "--identity_column=name")
    assert done.returncode == 2
    assert "this column holds the photo's name" in done.stderr


def test_max_pairs_of_zero_is_refused(call, tmp_path):
    assert call(make_pairs, "--dataset_mode=market", "--dataroot", tmp_path, "--max_pairs=0").returncode == 2
