"""inference/cached_source.py: the two parts together are the whole generator."""

import numpy as np
import pytest
from PIL import Image

from inference.attention import attend
from inference.cached_source import CachedSource, compile_target_part
from tests.helpers import compiles
from tests.inference.tiny_transfer import assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny
from util.errors import UserError


def test_cached_source_generates_what_pose_transfer_generates(tmp_path):
    transfer, people = load_tiny(write_tiny(tmp_path)), tiny_walk()
    poses = keypoints_of(people)
    poses[3, 4] = np.nan
    poses[4, 7] = (-20, 90)  # outside the image
    source = CachedSource(transfer, Image.fromarray(people[0].pixels), poses[0])
    expected = [transfer(people[0].pixels, poses[0], pose) for pose in poses]
    generated = [np.asarray(source.generate(pose)) for pose in poses]
    assert_close(generated, expected)
    assert (generated[0] != generated[3]).any()
    other = CachedSource(transfer, Image.fromarray(people[0].pixels), poses[2])  # the source's pose counts too
    assert (np.asarray(other.generate(poses[3])) != generated[3]).any()


def test_source_of_another_size_is_refused(tmp_path):
    with pytest.raises(UserError, match="source image: 60 x 128 pixels, expected 64 x 128"):
        CachedSource(load_tiny(write_tiny(tmp_path)), Image.new("RGB", (60, 128)), np.zeros((18, 2)))


@pytest.mark.slow
@compiles
def test_compiled_part_serves_several_sources_and_attention(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain, people = load_tiny(write_tiny(tmp_path)), tiny_walk()
    transfer = load_tiny(tmp_path, compile=True)
    target_part = compile_target_part(transfer)
    for photo in people[:2]:
        image = Image.fromarray(photo.pixels)
        expected = CachedSource(plain, image, photo.keypoints)
        source = CachedSource(transfer, image, photo.keypoints, target_part)
        for target in people[2:4]:
            assert_close(source.generate(target.keypoints), expected.generate(target.keypoints))
        attention = attend(source, people[2].keypoints)
        np.testing.assert_allclose(attention.weights, attend(expected, people[2].keypoints).weights, atol=1e-4)
    assert [len(function.libraries) for function in transfer.model.cached_inferences] == [0, 1]
