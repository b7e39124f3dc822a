"""inference/pose_transfer.py: images and poses in, images out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.pairs import read_keypoints
from inference.pose_transfer import PoseTransfer
from tests.conftest import COMMON, TINY_G, make_market
from tests.inference.tiny_transfer import SIZE, TINY_FLAGS, assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny
from util.errors import UserError


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def transfer(checkpoints) -> PoseTransfer:
    return load_tiny(checkpoints)


@pytest.fixture(scope="module")
def people():
    return tiny_walk()


def test_call_gives_the_same_image_for_every_input_type(transfer, people):
    pixels, (source, target) = people[0].pixels, keypoints_of(people[:2])
    array = transfer(pixels, source, target)
    assert (array.shape, array.dtype) == ((*SIZE, 3), np.uint8)
    assert array.std() > 1
    image = transfer(Image.fromarray(pixels), source, target)
    tensor = transfer(torch.from_numpy(pixels.copy()).permute(2, 0, 1), source, torch.from_numpy(target))
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(image, array)
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), array)


def test_call_with_several_inputs_equals_one_by_one(transfer, people):
    """Three are generated in batches of two; each input may be a single one for all."""
    photos, poses = np.stack([photo.pixels for photo in people[:3]]), keypoints_of(people)
    alone = np.stack([transfer(photos[i], poses[i], poses[i + 3]) for i in range(3)])
    together = transfer(photos, poses[:3], poses[3:])
    assert (alone[0] != alone[1]).any()
    assert_close(together, alone)
    listed = transfer([Image.fromarray(photo) for photo in photos], poses[:3], poses[3:])
    np.testing.assert_array_equal([np.asarray(image) for image in listed], together)
    one_photo = transfer(photos[0], poses[0], poses[3:])
    assert_close(one_photo, [transfer(photos[0], poses[0], pose) for pose in poses[3:]])
    one_pose = transfer(torch.from_numpy(photos).permute(0, 3, 1, 2), poses[:3], poses[5])
    expected = np.stack([transfer(photos[i], poses[i], poses[5]) for i in range(3)])
    assert_close(one_pose.permute(0, 2, 3, 1), expected)


def test_call_generates_what_the_test_command_generates(transfer, checkpoints, run, tmp_path):
    market = make_market(tmp_path / "market", photos=2, pairs=2, phases=["test"])
    folder = f"--checkpoints_dir={checkpoints}"
    run("test", *COMMON, *TINY_G, "--name=tiny", folder, f"--dataroot={market}", "--image_format=png")
    poses = read_keypoints(market / "market-annotation-test.csv")
    first, second = sorted(poses)
    generated = transfer(Image.open(market / "test" / first), poses[first], poses[second])
    written = Image.open(f"results/{Path(first).stem}_2_{Path(second).stem}_vis.png")
    np.testing.assert_array_equal(generated, written)


@pytest.mark.parametrize(
    ("photo", "source", "target", "message"),
    [
        (np.zeros((64, 64, 3), np.uint8), 1, 1, r"source images must be \(128, 64\) .*got \(64, 64\)"),
        (np.zeros((128, 64, 3)), 1, 1, "expected uint8"),
        (np.zeros((3, 128, 64), np.uint8), 1, 1, r"expected uint8 \(B,H,W,3\)"),
        (torch.zeros((128, 64, 3), dtype=torch.uint8), 1, 1, r"expected uint8 \(B,3,H,W\)"),
        ([], 1, 1, "expected PIL images"),
        (None, 17, 1, r"source keypoints: expected \(18,2\)"),
        (None, 1, (2, 3, 18, 2), r"target keypoints: expected \(18,2\)"),
        (None, (2, 18, 2), (3, 18, 2), "1 source images, 2 source poses, 3 target poses"),
    ],
)
def test_call_wrong_input_raises(transfer, photo, source, target, message):
    photo = np.zeros((*SIZE, 3), np.uint8) if photo is None else photo
    shapes = [{1: (18, 2), 17: (17, 2)}.get(shape, shape) for shape in (source, target)]
    with pytest.raises(ValueError, match=message):
        transfer(photo, *map(np.zeros, shapes))


def test_load_checks_flags_and_weights(checkpoints):
    where = {"checkpoints_dir": checkpoints, "dataset_mode": "market", "gpu_ids": -1}
    for wrong in ({"niter": 3}, {"precision": "fp8"}, {"compile": "yes"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PoseTransfer.load("tiny", **where, **wrong)
    with pytest.raises(UserError, match="5_net_G.pth: .*not found"):
        PoseTransfer.load("tiny", **where, which_epoch=5)
    with pytest.raises(UserError, match="does not fit this network"):
        PoseTransfer.load("tiny", **where)
    assert PoseTransfer.load("tiny", **where, **TINY_FLAGS, channels_last=True, which_epoch=7).opt.channels_last
