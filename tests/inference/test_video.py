"""Animations, videos and numbered images, written and read back."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from inference.video import check_animation, read_frames, write_animation
from util.errors import UserError


def moving_block(count: int, size: tuple[int, int] = (48, 36), colors: int = 5) -> list[Image.Image]:
    """A bright block that moves to the right over a still pattern, size (W, H)."""
    x, y = np.meshgrid(np.arange(size[0]) // 8 % colors, np.arange(size[1]) // 8 % colors)
    ground = np.stack([30 + 20 * x, 40 + 15 * y, 90 + 5 * x], -1).astype(np.uint8)
    frames = []
    for number in range(count):
        frame = ground.copy()
        frame[10:22, 2 * number : 2 * number + 12] = (250, 240, 60)
        frames.append(Image.fromarray(frame))
    return frames


def array(frames: Iterable[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(frame, float) for frame in frames])


def read_all(path: Path, every: int = 1) -> tuple[list[str], list[Image.Image], float | None]:
    frames, fps = read_frames(path, every)
    names, found = zip(*frames)
    return list(names), list(found), fps


def read_folder(folder: Path) -> dict[str, Image.Image]:
    return {path.name: Image.open(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("ending", ["gif", "webp", "GIF"])
@pytest.mark.parametrize("fps", [7, 12.5, 30])
def test_write_animation_then_read_frames_gives_the_frames(tmp_path, ending, fps):
    frames = moving_block(10)
    path = tmp_path / "new" / f"walk.{ending}"
    write_animation(iter(frames), path, fps)
    assert os.listdir(path.parent) == [path.name]
    names, found, read_fps = read_all(path)
    assert names == [f"walk_{number:05d}" for number in range(1, 11)]
    assert read_fps == pytest.approx(fps, rel=0.02)  # durations are whole 10 ms or 1 ms
    assert np.abs(array(found) - array(frames)).mean() < (4 if ending == "webp" else 1)
    with Image.open(path) as file:
        assert file.info["loop"] == 0


def test_write_animation_gif_keeps_a_still_background_still(tmp_path):
    """The frames have more colors than a GIF holds and share one palette."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    frames = []
    for _ in range(6):
        ground[:10] = random.integers(0, 256, (10, 40, 3))
        frames.append(Image.fromarray(ground.copy()))
    write_animation(frames, tmp_path / "a.gif", 10)
    found = array(read_all(tmp_path / "a.gif")[1])
    assert (np.diff(found, axis=0)[:, 10:] == 0).all()
    assert np.abs(found - array(frames)).mean() < 15


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_read_frames_repeats_frames_that_are_shown_longer(tmp_path, ending):
    """Files hold equal successive frames as one of a longer duration."""
    a, b, c = moving_block(3)
    write_animation([a, b, b, b, c, a, c], tmp_path / f"a.{ending}", 10)
    _, found, fps = read_all(tmp_path / f"a.{ending}")
    assert np.abs(array(found) - array([a, b, b, b, c, a, c])).mean() < 4
    assert fps == pytest.approx(10)
    names, _, fps = read_all(tmp_path / f"a.{ending}", every=3)
    assert names == ["a_00001", "a_00004", "a_00007"]
    assert fps == pytest.approx(10 / 3)


def test_read_frames_without_durations_is_10_fps(tmp_path):
    frames = moving_block(3)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_all(tmp_path / "a.gif")[2] == 10


@pytest.mark.parametrize("name", ["frames", "frames/", "frames.v2/"])
def test_write_animation_folder_gets_numbered_images(tmp_path, name):
    frames = moving_block(11)
    write_animation(iter(frames), f"{tmp_path}/{name}", 25)
    written = read_folder(tmp_path / name)
    assert list(written) == [f"{number:05d}.png" for number in range(1, 12)]
    np.testing.assert_array_equal(array(written.values()), array(frames))
    with pytest.raises(UserError, match="not an empty folder"):
        write_animation(frames, f"{tmp_path}/{name}", 25)


def untouchable():
    raise AssertionError("a frame was asked for")
    yield


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("a.xyz", 25, r"\.gif, \.webp, \.mp4"),
        ("a.gif", 60, "no more than 50"),
        ("full", 25, "not an empty folder"),
    ],
)
def test_write_animation_checks_its_output_before_the_first_frame(tmp_path, name, fps, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "00001.png").write_bytes(b"old")
    with pytest.raises(UserError, match=message):
        write_animation(untouchable(), tmp_path / name, fps)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "00001.png"]


def test_read_frames_composes_transparent_pixels_on_white(tmp_path):
    frames = [Image.new("RGBA", (4, 4), (200, 0, 0, 255)), Image.new("RGBA", (4, 4), (0, 200, 0, 0))]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    read, _ = read_frames(tmp_path / "a.webp")
    assert [frame.getpixel((0, 0)) for _, frame in read] == [(200, 0, 0), (255, 255, 255)]


def broken(count: int):
    yield from moving_block(count)
    raise UserError("the network failed")


@pytest.fixture(params=["gif", "webp", "mp4"])
def ending(request) -> str:
    if request.param == "mp4":
        pytest.importorskip("imageio_ffmpeg", reason="optional: pip install imageio-ffmpeg")
    return request.param


@pytest.fixture
def ffmpeg() -> str:
    return pytest.importorskip("imageio_ffmpeg", reason="optional: pip install imageio-ffmpeg").get_ffmpeg_exe()


def test_write_animation_is_atomic(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="the network failed"):
        write_animation(broken(3), path, 25)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
    write_animation(moving_block(1), path, 25)
    assert len(read_all(path)[1]) == 1


def test_write_animation_folder_keeps_images_before_a_failure(tmp_path):
    with pytest.raises(UserError, match="the network failed"):
        write_animation(broken(3), tmp_path / "frames", 25)
    assert list(read_folder(tmp_path / "frames")) == ["00001.png", "00002.png", "00003.png"]


@pytest.mark.parametrize("fps", [12.5, 30000 / 1001])
@pytest.mark.parametrize("size", [(48, 36), (175, 127)])
def test_write_animation_video_then_read_frames_gives_the_frames(tmp_path, ffmpeg, fps, size):
    """Odd sides become even by repeating the last pixel."""
    frames = moving_block(15, size)
    path = tmp_path / "new" / "walk.mp4"
    write_animation(iter(frames), path, fps)
    names, found, read_fps = read_all(path)
    assert names == [f"walk_{number:05d}" for number in range(1, 16)]
    assert read_fps == pytest.approx(fps, rel=0.001)
    assert found[0].size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    wide = [np.pad(frame, ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), "edge") for frame in frames]
    assert np.abs(array(found) - array(wide)).mean() < 3
    names, _, fewer = read_all(path, every=4)
    assert names == ["walk_00001", "walk_00005", "walk_00009", "walk_00013"]
    assert fewer == pytest.approx(fps / 4, rel=0.001)


def test_write_animation_video_is_h264_for_other_programs(tmp_path, ffmpeg):
    write_animation(moving_block(4), tmp_path / "a.mp4", 25)
    output = subprocess.run([ffmpeg, "-i", tmp_path / "a.mp4"], capture_output=True, text=True).stderr
    assert re.search(r"Video: h264.* yuv420p", output)
    assert "48x36" in output


@pytest.mark.parametrize("container", ["mov", "mkv", "webm", "avi"])
def test_read_frames_of_other_containers(tmp_path, ffmpeg, container):
    frames = moving_block(6)
    write_animation(frames, tmp_path / "a.mp4", 25)
    subprocess.run([ffmpeg, "-v", "error", "-i", tmp_path / "a.mp4", tmp_path / f"a.{container}"], check=True)
    _, found, fps = read_all(tmp_path / f"a.{container}")
    assert fps == 25
    assert len(found) == 6
    assert np.abs(array(found) - array(frames)).mean() < 8


@pytest.mark.parametrize(
    ("flags", "after", "expected"),
    [
        (["-display_rotation", "90"], [], lambda p: p.transpose(Image.Transpose.ROTATE_90)),
        ([], ["-aspect", "2:3"], lambda p: p.resize((24, 36))),
    ],
)
def test_read_frames_video_comes_upright_and_undistorted(tmp_path, ffmpeg, flags, after, expected):
    frames = moving_block(3)
    write_animation(frames, tmp_path / "a.mp4", 25)
    copy = [*flags, "-i", tmp_path / "a.mp4", "-c", "copy", *after, tmp_path / "b.mp4"]
    subprocess.run([ffmpeg, "-v", "error", *copy], check=True)
    found = read_all(tmp_path / "b.mp4")[1]
    assert np.abs(array(found) - array([expected(frame) for frame in frames])).mean() < 8


def test_read_frames_video_cut_short_raises(tmp_path, ffmpeg):
    random = np.random.default_rng(0)
    frames = [Image.fromarray(random.integers(0, 256, (64, 64, 3)).astype(np.uint8)) for _ in range(40)]
    write_animation(frames, tmp_path / "a.mp4", 25)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "stub.mp4").write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"stub\.mp4: cannot be read as a video"):
        read_frames(tmp_path / "stub.mp4")
    reader, _ = read_frames(tmp_path / "half.mp4")
    assert len(list(islice(reader, 5))) == 5
    with pytest.raises(UserError, match=r"half\.mp4: only \d+ of about 40 frames"):
        list(reader)


def test_read_frames_unreadable_file_raises(tmp_path):
    (tmp_path / "bad.gif").write_bytes(b"GIF89a and nothing")
    with pytest.raises(UserError, match=r"bad\.gif: cannot be decoded"):
        read_frames(tmp_path / "bad.gif")


def test_videos_without_ffmpeg_fail_before_the_first_frame(tmp_path, monkeypatch):
    """The package may come without ffmpeg where there is no wheel for the processor."""

    def find_none():
        raise RuntimeError("No ffmpeg exe could be found.\nInstall ffmpeg")

    package = SimpleNamespace(get_ffmpeg_exe=find_none)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    with pytest.raises(UserError, match=r"videos need ffmpeg \(No ffmpeg exe could be found\.\)"):
        check_animation(tmp_path / "b.mp4", 25)


def test_videos_without_imageio_ffmpeg_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    for action in (lambda: read_frames(tmp_path / "a.mp4"), lambda: write_animation(untouchable(), "b.mp4", 25)):
        with pytest.raises(UserError, match="pip install imageio-ffmpeg"):
            action()
