"""example.py: what its image shows."""

import numpy as np
from PIL import Image

from data.synthetic.people import render_identity
from inference.pose_transfer import PoseTransfer
from tests.helpers import REPOSITORY


def test_example_shows_what_pose_transfer_generates(command, tmp_path):
    done = command("example.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["example.png"]
    sheet = np.asarray(Image.open(tmp_path / "work/example.png"))
    assert sheet.shape == (128, 5 * 64, 3)

    source, target = render_identity(7, "market", 2, seed=1)
    transfer = PoseTransfer.load("rendered_market", checkpoints_dir=REPOSITORY / "pretrained", gpu_ids="-1")
    generated = transfer(source.pixels, source.keypoints, target.keypoints)
    np.testing.assert_array_equal(sheet[:, :64], source.pixels)
    np.testing.assert_array_equal(sheet[:, 256:], target.pixels)
    np.testing.assert_allclose(sheet[:, 192:256].astype(int), generated.astype(int), atol=1)


def test_example_is_short_and_refuses_other_image_formats(command):
    assert len((REPOSITORY / "example.py").read_text().splitlines()) <= 60
    done = command("example.py", "--out=x.bmp")
    assert done.returncode == 2
    assert done.stderr.endswith("argument --out: 'x.bmp' does not end in one of .jpg, .png\n")
