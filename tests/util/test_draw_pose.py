"""Skeletons drawn for people to look at."""

from PIL import Image

from util.draw_pose import draw_skeleton


def test_draw_skeleton_leaves_out_missing_keypoints():
    keypoints = [[float("nan")] * 2] * 18
    assert draw_skeleton(keypoints, (64, 32)).getbbox() is None
    keypoints[0], keypoints[1] = [10.0, 5.0], [50.0, 25.0]
    left, top, right, bottom = draw_skeleton(keypoints, (64, 32)).getbbox()
    assert 3 <= left <= 5 <= 25 <= right <= 28
    assert 8 <= top <= 10 <= 50 <= bottom <= 53


def test_draw_skeleton_copies_the_background():
    background = Image.new("RGB", (32, 64), "white")
    keypoints = [[float("nan")] * 2] * 17 + [[40.0, 20.0]]
    drawn = draw_skeleton(keypoints, (64, 32), background)
    assert drawn.getpixel((20, 40)) != (255, 255, 255)
    assert drawn.getpixel((5, 5)) == background.getpixel((20, 40)) == (255, 255, 255)
