"""inference/pose_transfer.py: images and poses in, images out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.pairs import read_keypoints
from inference.pose_transfer import PoseTransfer
from tests.helpers import COMMON, TINY_G, make_market, random_batch
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


def test_call_takes_pil_images_as_viewers_show_them(transfer, people, tmp_path):
    """A file that Pillow has only opened still has its EXIF orientation and transparent pixels."""
    photo, exif = Image.fromarray(people[0].pixels), Image.Exif()
    exif[0x112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    poses = keypoints_of(people)
    generated = transfer([Image.open(tmp_path / "a.png"), photo], poses[0], poses[1])
    np.testing.assert_array_equal(*generated)
    hidden = Image.new("RGBA", photo.size, (0, 255, 0, 0))
    generated = transfer([hidden, Image.new("RGB", photo.size, "white")], poses[0], poses[1])
    np.testing.assert_array_equal(*generated)


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
        (np.zeros((3, 128, 64), np.uint8), 1, 1, r"expected uint8 \(H,W,3\) or \(B,H,W,3\)"),
        (torch.zeros((128, 64, 3), dtype=torch.uint8), 1, 1, r"expected uint8 \(3,H,W\) or \(B,3,H,W\)"),
        (torch.zeros((3, 128, 64), dtype=torch.bfloat16), 1, 1, "expected uint8 .*got bfloat16"),
        (torch.zeros((3, 128, 64), requires_grad=True), 1, 1, "expected uint8 .*got float32"),
        (np.zeros((0, 128, 64, 3), np.uint8), (0, 18, 2), (0, 18, 2), "0 source images, 0 source poses, 0 target"),
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


@pytest.mark.parametrize("photo", [Path("a.png"), (image for image in [Image.new("RGB", (64, 128))])])
def test_call_other_types_of_images_raises(transfer, photo):
    with pytest.raises(ValueError, match="source images: expected PIL images, a uint8 array or a uint8 tensor"):
        transfer(photo, np.zeros((18, 2)), np.zeros((18, 2)))


def test_call_keypoints_may_be_tensors_with_gradients_and_lists_with_none(transfer):
    photo, pose = np.zeros((*SIZE, 3), np.uint8), np.full((18, 2), 30.0)
    as_tensor = torch.tensor(pose, requires_grad=True)
    np.testing.assert_array_equal(transfer(photo, as_tensor, pose), transfer(photo, pose, pose))
    as_list = [[None, None], *pose[1:].tolist()]
    pose[0] = np.nan
    np.testing.assert_array_equal(transfer(photo, as_list, pose), transfer(photo, pose, pose))
    with pytest.raises(ValueError, match="source keypoints: expected numbers of shape"):
        transfer(photo, "here", pose)


class TestGenerateAll:
    """Order, batch sizes and results of `generate_all`, on the CPU and where the CPU stands in for a CUDA device."""

    @pytest.fixture
    def log(self, transfer, monkeypatch) -> list[str]:
        """What happens, in order: "start" with the number of samples that the model sees, "wait" with the batch."""
        happened: list[str] = []

        class Event:
            def __init__(self, blocking: bool) -> None:
                assert blocking
                self.batch = sum(entry.startswith("start") for entry in happened) - 1

            def record(self, stream: str) -> None:
                assert stream == "stream of cuda:1"

            def synchronize(self) -> None:
                happened.append(f"wait {self.batch}")

        set_input = transfer.model.set_input

        def logged_set_input(batch: dict) -> None:
            happened.append(f"start {len(batch['source_image'])}")
            set_input(batch)

        monkeypatch.setattr(transfer.model, "set_input", logged_set_input)
        monkeypatch.setattr("torch.cuda.Event", Event)
        monkeypatch.setattr("torch.cuda.current_stream", lambda device: f"stream of {device}")
        return happened

    def generate(self, transfer: PoseTransfer, log: list[str]) -> list[torch.Tensor]:
        """The images of five samples in batches of two; logs when each batch is used, with its number of images."""
        batch = random_batch(5, *SIZE)
        batches = [{key: values[start : start + 2] for key, values in batch.items()} for start in (0, 2, 4)]
        generated = []
        for number, (used, images) in enumerate(transfer.generate_all(iter(batches))):
            assert used is batches[number]
            log.append(f"use {len(images)}")
            generated.append(images)
        return generated

    def test_cpu_generates_each_batch_when_it_is_used(self, transfer, log):
        images = self.generate(transfer, log)
        assert log == ["start 2", "use 2", "start 2", "use 2", "start 1", "use 1"]
        assert [image.shape for image in images] == [(2, 3, *SIZE), (2, 3, *SIZE), (1, 3, *SIZE)]

    def test_cuda_starts_a_batch_before_the_one_before_it_is_used(self, transfer, log, monkeypatch):
        """The last batch is filled up to two samples. Results are those of the CPU, up to another batch's rounding."""
        expected = self.generate(transfer, [])
        log.clear()
        monkeypatch.setattr(transfer, "device", torch.device("cuda", 1))
        images = self.generate(transfer, log)
        assert log == ["start 2", "start 2", "wait 0", "use 2", "start 2", "wait 1", "use 2", "wait 2", "use 1"]
        assert all(map(torch.equal, images[:2], expected[:2]))
        assert_close(images[2], expected[2])
        assert len({image.untyped_storage().data_ptr() for image in images}) == 3  # no buffer is used again

    def test_cuda_fills_up_with_the_last_sample(self, transfer, log, monkeypatch):
        monkeypatch.setattr(transfer, "device", torch.device("cuda", 1))
        last = random_batch(1, *SIZE)
        images = transfer.generate(last)
        assert log == ["start 2", "wait 0"]
        assert len(images) == 1
        seen = transfer.model.batch
        assert torch.equal(seen.source_image[0], seen.source_image[1])
        assert torch.equal(seen.target_keypoints.nan_to_num(), last["target_keypoints"].nan_to_num().repeat(2, 1, 1))

    def test_cuda_generates_nothing_without_batches(self, transfer, monkeypatch):
        monkeypatch.setattr(transfer, "device", torch.device("cuda", 1))
        assert list(transfer.generate_all([])) == []


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
