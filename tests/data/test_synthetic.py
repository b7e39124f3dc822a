"""Drawn people: the body's geometry against closed forms, and the data set that the command writes."""

import dataclasses
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_fill_holes

from data.fashion_dataset import FashionDataset
from data.market_dataset import MarketDataset
from data.pairs import read_keypoints, read_pairs
from data.synthetic.body import (
    CAMERA_TILT,
    CLOTH_PATTERNS,
    HAIR_STYLES,
    Posture,
    body_surfaces,
    paint_cloth,
    pose,
    render,
    rotation,
    tube,
    visible_keypoints,
)
from data.synthetic.people import random_person, random_posture, render_identity, render_people

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # no division by zero goes into a picture
UPRIGHT = Posture(raise_=(0, 0), spread=(0, 0), elbow=(0, 0))


def person(seed: int = 0, **changes: object):
    return dataclasses.replace(random_person(np.random.default_rng(seed)), **changes)


def level(joints: np.ndarray) -> np.ndarray:
    """Joints without the camera's tilt."""
    return joints @ rotation("x", -CAMERA_TILT)


def test_upright():
    """Right joints at the viewer's left, limbs hanging at their lengths, facing the viewer."""
    someone = person()
    joints = level(pose(someone, UPRIGHT).joints)
    np.testing.assert_allclose(joints[1], (0, -0.5, 0), atol=1e-12)
    np.testing.assert_allclose(joints[2], (-someone.shoulder, -0.48, 0), atol=1e-12)
    np.testing.assert_allclose(joints[4] - joints[2], (0, 0.29 + 0.25, 0), atol=1e-12)
    np.testing.assert_allclose(joints[13] - joints[11], (0, 0.43 + 0.42, 0), atol=1e-12)
    mirrored = joints[[0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]] * (-1, 1, 1)
    np.testing.assert_allclose(joints, mirrored, atol=1e-12)
    assert (joints[[0, 14, 15], 2] > 0.05).all()  # the face is in front


def test_joint_angles():
    """Arms out sideways; left thigh level to the front with the shin hanging; right elbow bent to the front."""
    posture = Posture(raise_=(0, 90), hip=(0, 90), knee=(0, 90), spread=(0, 0), elbow=(90, 0))
    joints = level(pose(person(), posture).joints)
    np.testing.assert_allclose(joints[7] - joints[5], (0.54, 0, 0), atol=1e-12)
    np.testing.assert_allclose(joints[4] - joints[3], (0, 0, 0.25), atol=1e-12)
    np.testing.assert_allclose(joints[12] - joints[11], (0, 0, 0.43), atol=1e-12)
    np.testing.assert_allclose(joints[13] - joints[12], (0, 0.42, 0), atol=1e-12)


@pytest.mark.parametrize("yaw", [0, 90, 180, 270])
def test_views(yaw):
    """Turning the person turns every joint about the vertical."""
    front, turned = (level(pose(person(), dataclasses.replace(UPRIGHT, yaw=a)).joints) for a in (0, yaw))
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    expected = np.stack([c * front[:, 0] + s * front[:, 2], front[:, 1], -s * front[:, 0] + c * front[:, 2]], 1)
    np.testing.assert_allclose(turned, expected, atol=1e-12)


def draw_someone(someone, posture: Posture, size=(256, 128), scale=130.0):
    skeleton = pose(someone, posture)
    picture = np.full((*size, 3), -1.0)
    origin = (size[1] / 2, size[0] * 0.47)
    depth = render(body_surfaces(someone, skeleton, scale), picture, origin, scale)
    return picture, depth, visible_keypoints(skeleton.joints, depth, origin, scale, size)


def test_face_is_hidden_from_behind():
    bald = person(hair_style="bald", bag=None)
    front, back, side = (draw_someone(bald, Posture(yaw=yaw, raise_=(14, 14)))[2] for yaw in (0, 180, 90))
    assert not np.isnan(front).any()
    assert np.isnan(back[[0, 14, 15]]).all()
    assert np.isnan(side[17]).all()  # looking to the viewer's right shows the right ear
    assert not np.isnan(side[16]).any()
    assert front[5, 1] > front[2, 1]  # the person's left is at the right
    assert back[5, 1] < back[2, 1]


def test_an_arm_behind_the_back_is_missing():
    behind = Posture(arm=(0, -25), raise_=(10, 5), turn=(0, 60), elbow=(0, 80))
    keypoints = draw_someone(person(bag=None), behind)[2]
    assert np.isnan(keypoints[7]).all()
    assert not np.isnan(keypoints[4]).any()


def test_visible_joints_lie_on_the_body_and_the_body_has_no_holes():
    random = np.random.default_rng(3)
    for number in range(12):
        someone = random_person(random)
        posture = random_posture(random, number % 8)
        picture, depth, keypoints = draw_someone(someone, posture, scale=100.0 + 20 * number)
        drawn = np.isfinite(depth)
        assert (picture[drawn] >= 0).all()
        assert (picture[~drawn] == -1).all()
        limbs = keypoints[[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]]
        y, x = limbs[~np.isnan(limbs).any(1)].astype(int).T
        assert drawn[y, x].all()
    alone = draw_someone(person(skirt=0.0, bag=None), Posture(raise_=(0, 0), spread=(-8, -8)), scale=135.0)[1]
    torso = np.isfinite(alone)[70:110, 50:78]
    assert (binary_fill_holes(torso) == torso).all()
    assert torso[:, 10:18].all()


@pytest.mark.parametrize("scale", [20, 90, 377])
def test_tube_is_a_capsule(scale):
    """Its outline has the area of the closed form, without holes, and its depth is that of a cylinder."""
    axis, left = np.array([[0, -0.3, 0], [0, 0, 0], [0, 0.3, 0]]), np.array([[1.0, 0, 0]] * 3)
    surface = tube(axis, left, [0.1, 0.1], [0.1, 0.1], lambda a, b: np.ones((*a.shape, 3)), scale, ends=(0.1, 0.1))
    side = int(scale)
    depth = render([surface], np.zeros((side, side, 3)), (side / 2, side / 2), scale)
    drawn = np.isfinite(depth)
    assert (binary_fill_holes(drawn) == drawn).all()
    area, outline = (0.4 * 0.2 + np.pi * 0.1**2) * scale**2, (0.8 + 2 * np.pi * 0.1) * scale
    assert area <= drawn.sum() <= area + outline  # a pixel counts when any part of it is covered
    x = (np.arange(side) + 0.5 - side / 2) / scale
    middle = np.abs(x) < 0.08
    np.testing.assert_allclose(depth[side // 2, middle], np.sqrt(0.01 - x[middle] ** 2), atol=1.5 / scale)


def test_nearest_surface_wins():
    left = np.array([[1.0, 0, 0]] * 2)
    near, far = (
        tube(np.array([[0, -0.2, z], [0, 0.2, z]]), left, [0.1] * 2, [0.1] * 2,
             lambda a, b, gray=gray: np.full((*a.shape, 3), gray), 50.0)
        for z, gray in ((0.5, 1.0), (0.0, 0.1))
    )  # fmt: skip
    for order in ([near, far], [far, near]):
        picture = np.zeros((40, 40, 3))
        depth = render(order, picture, (20, 20), 50.0)
        assert picture[20, 20, 0] > 0.5
        assert depth[20, 20] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("pattern", CLOTH_PATTERNS)
def test_patterns_repeat_and_use_the_cloth_s_colors(pattern):
    cloth = random_person(np.random.default_rng(0)).top._replace(pattern=pattern, colors=np.eye(3), size=0.1)
    around, along = np.meshgrid(np.linspace(-0.3, 0.3, 61), np.linspace(0, 0.6, 61))
    painted = paint_cloth(cloth, around, along)
    assert painted.shape == (61, 61, 3)
    assert set(map(tuple, painted.reshape(-1, 3))) <= set(map(tuple, np.eye(3)))
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == {"plain": 1, "checks": 3, "print": 3}.get(pattern, 2)


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_changes_the_head_only(style):
    bald, other = (draw_someone(person(hair_style=s, bag=None), UPRIGHT)[0] for s in ("bald", style))
    changed = (bald != other).any(-1)
    assert changed.any() == (style != "bald")
    if style != "long":
        assert not changed[90:].any()


def options(root: Path) -> Namespace:
    return Namespace(dataroot=str(root), max_dataset_size=None, cache_images=False)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    render_people(root / "market", "market", (3, 2), photos=4, seed=5, workers=1)
    return root / "market"


def test_layout(drawn):
    """Both splits load, identities are disjoint, all ordered pairs are there, some joints are missing."""
    train, test = (MarketDataset(options(drawn), phase) for phase in ("train", "test"))
    assert (len(train), len(test)) == (3 * 12, 2 * 12)
    assert train[0]["source_image"].shape == (3, 128, 64)
    people = [{MarketDataset.identity(pair.source) for pair in split.pairs} for split in (train, test)]
    assert list(map(len, people)) == [3, 2]
    assert not people[0] & people[1]
    assert all(MarketDataset.identity(a) == MarketDataset.identity(b) and a != b for a, b in train.pairs + test.pairs)
    joints = np.stack(list(read_keypoints(drawn / "market-annotation-train.csv").values()))
    missing = np.isnan(joints).any(-1)
    assert 0.02 < missing.mean() < 0.4
    known = joints[~missing]
    assert (known >= 0).all()
    assert (known < (128, 64)).all()
    assert (known == known.round()).all()


def test_fashion_layout(tmp_path):
    render_people(tmp_path, "fashion", (2, 1), photos=3, seed=1, workers=1)
    data = FashionDataset(options(tmp_path), "train")
    assert data[0]["source_image"].shape == (3, 256, 256)
    assert Image.open(tmp_path / "test" / read_pairs(tmp_path / "fasion-resize-pairs-test.csv")[0].source).size == (
        176,
        256,
    )
    assert len({FashionDataset.identity(pair.source) for pair in data.pairs}) == 2


def test_same_seed_same_files(drawn, tmp_path):
    """Whatever the number of processes."""
    render_people(tmp_path / "again", "market", (3, 2), photos=4, seed=5, workers=2)
    files = sorted(p.relative_to(drawn) for p in drawn.rglob("*") if p.is_file())
    assert len(files) == 20 + 4
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (drawn / name).read_bytes()
    other = render_identity(1, "market", 4, seed=6)[0]
    assert not np.array_equal(other.pixels, render_identity(1, "market", 4, seed=5)[0].pixels)


def test_one_identity_keeps_its_clothes_and_background(drawn):
    """Its photos are nearer to each other than to those of others, in the corners of the background most of all."""
    photos = sorted((drawn / "train").glob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(p), float) for p in photos])
    people = np.array([MarketDataset.identity(p.name) for p in photos])
    corner = pixels[:, :12, :12].mean((1, 2))
    own = max(np.abs(corner[people == p] - corner[people == p].mean(0)).max() for p in set(people))
    means = [corner[people == p].mean(0) for p in sorted(set(people))]
    other = min(np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i])
    assert own < 6 < other


def test_command(command, tmp_path):
    out = tmp_path / "people"
    flags = ("--out", out, "--identities=2", "--test_identities=1", "--poses=2", "--workers=1")
    first = command("-m data.synthetic", *flags, "--sheet", tmp_path / "sheet.png")
    assert first.returncode == 0, first.stderr
    assert "6 photos of 3 drawn people" in first.stdout
    assert Image.open(tmp_path / "sheet.png").size == (64 * 4, 128 * 2)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert "already there" in command("-m data.synthetic", *flags).stdout
    typo = command("-m data.synthetic", *flags, "--sheet=sheet.gif")
    assert (typo.returncode, "does not end in one of .jpg, .png" in typo.stderr) == (2, True)
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    other = command("-m data.synthetic", *flags, "--seed=1")
    assert other.returncode == 2
    assert "drawn with other settings" in other.stderr
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*")}

    (out / "market-pairs-test.csv").unlink()  # as after a run that was stopped
    own = "from,to\n" + (out / "market-pairs-train.csv").read_text().splitlines()[1] + "\n"
    (out / "market-pairs-train.csv").write_text(own)
    gone = next((out / "train").iterdir())
    gone.unlink()
    assert command("-m data.synthetic", *flags).returncode == 0
    assert len(read_pairs(out / "market-pairs-test.csv")) == 2
    assert gone.exists()
    assert (out / "market-pairs-train.csv").read_text() == own


def test_command_refuses_a_folder_that_is_not_its_own(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").touch()
    result = command("-m data.synthetic", "--out", tmp_path / "mine")
    assert result.returncode == 2
    assert "not empty" in result.stderr
    (tmp_path / "mine/synthetic.json").write_text("{")
    assert "cannot be read" in command("-m data.synthetic", "--out", tmp_path / "mine").stderr
