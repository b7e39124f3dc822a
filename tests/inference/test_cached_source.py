"""inference/cached_source.py: the two parts together are the whole generator."""

import numpy as np
from PIL import Image

from inference.cached_source import CachedSource
from tests.inference.tiny_transfer import assert_close, keypoints_of, load_tiny, tiny_walk, write_tiny


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
