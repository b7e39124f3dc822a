"""Videos and animations, read and written one frame at a time.

Videos need imageio-ffmpeg (`pip install imageio-ffmpeg`), which brings its own ffmpeg; GIF and WebP need Pillow only.
"""

import contextlib
import itertools
import logging
import os.path
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageSequence

from util.errors import UserError, first_line
from util.files import atomic_write, is_taken
from util.image import DECODING_ERRORS, to_upright_rgb

VIDEOS = (".mp4", ".mov", ".avi", ".webm", ".mkv")
ANIMATIONS = (".gif", ".webp")
DEFAULT_DURATION = 100  # milliseconds that viewers show a frame whose duration is 0 in the file
ANIMATION_FRAME = "{:05d}.png"  # in a folder, from 1
PALETTE_FRAMES = 16  # a GIF's colors are chosen from at most this many of its frames
MAX_GIF_FPS = 50  # viewers play faster files slowly


def is_moving(path: Path) -> bool:
    """Whether the file is a video, or an animation of more than one frame. Raises UserError if it is damaged."""
    if path.suffix.lower() in ANIMATIONS:
        return len(list(itertools.islice(_animation_frames(path), 2))) > 1
    return path.suffix.lower() in VIDEOS


def read_frames(path: Path, every: int = 1) -> tuple[Iterator[tuple[str, Image.Image]], float | None]:
    """(name, RGB frame) of every `every`-th frame, and how many of these make a second (None: the file does not say).

    `path` is a video or an animation (`is_moving`). Names are STEM_00001 and so on: frames are numbered as they come.
    Frames are decoded one at a time. Videos are turned upright by their rotation mark; frames of an animation that last
    longer than usual are repeated. Raises UserError at once if the file cannot be opened, later if a frame cannot
    be decoded.
    """
    frames, fps = _open_video(path) if path.suffix.lower() in VIDEOS else _open_animation(path)
    named = ((f"{path.stem}_{number:05d}", frame) for number, frame in enumerate(frames, start=1))
    return itertools.islice(named, 0, None, every), fps and fps / every


def _open_animation(path: Path) -> tuple[Iterator[Image.Image], float]:
    """Equal successive frames are one frame of a longer duration in the file: it is repeated as often as it lasts."""
    durations = [duration for duration, _ in _animation_frames(path)]
    usual = statistics.median_low(durations)
    repeats = [max(1, round(duration / usual)) for duration in durations]
    decoded = (to_upright_rgb(frame).image for _, frame in _animation_frames(path))
    frames = itertools.chain.from_iterable(map(itertools.repeat, decoded, repeats))
    return frames, 1000 * sum(repeats) / sum(durations)


def _animation_frames(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """(duration in milliseconds, frame) of each frame of an animation."""
    try:
        with Image.open(path) as file:
            for frame in ImageSequence.Iterator(file):
                frame.load()  # the duration of a WebP frame is known only after loading
                yield frame.info.get("duration") or DEFAULT_DURATION, frame
    except DECODING_ERRORS as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def _open_video(path: Path) -> tuple[Iterator[Image.Image], float | None]:
    square_pixels = ["-vf", "scale=iw*sar:ih,setsar=1"]  # some cameras record pixels that are not square
    reader = _ffmpeg().read_frames(str(path), output_params=square_pixels)
    try:
        properties = next(reader)
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a video ({_last_line(str(error))})") from error
    return _video_frames(path, reader, properties), properties["fps"] or None


def _video_frames(path: Path, reader: Iterator[bytes], properties: dict) -> Iterator[Image.Image]:
    """UserError after the last frame if fewer frames came than the properties promise."""
    number = 0
    try:
        for pixels in reader:
            yield Image.frombytes("RGB", properties["size"], pixels)
            number += 1
    except RuntimeError as error:
        raise UserError(f"{path}: frame {number + 1} cannot be decoded ({_last_line(str(error))})") from error
    expected = round(properties["fps"] * properties["duration"])
    # The duration is rounded, and the sound may last longer than the images: a few missing frames are no error.
    if number < min(expected - 2, 0.95 * expected) or not number:
        raise UserError(f"{path}: only {number} of about {expected} frames can be decoded; is the file complete?")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


def _ffmpeg() -> ModuleType:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except ImportError as error:
        raise UserError("videos need imageio-ffmpeg: pip install imageio-ffmpeg") from error
    except RuntimeError as error:  # the package came without ffmpeg, and the system has none
        raise UserError(f"videos need ffmpeg ({first_line(error)})") from error
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of each video that was filmed upright
    return imageio_ffmpeg


def is_folder(out: str | Path) -> bool:
    """Whether output goes to a folder `out`: it ends in '/' or '\\', has no suffix, or is an existing folder."""
    return str(out).endswith(("/", "\\")) or not Path(out).suffix or Path(out).is_dir()


def check_animation(out: str | Path, fps: float) -> None:
    """Raise UserError if `out` is no place for an animation: an unknown suffix, a folder that is not empty, no ffmpeg
    for MP4, or more frames per second than GIF shows."""
    path, suffix = Path(out), Path(out).suffix.lower()
    if is_folder(out):
        if is_taken(path):
            raise UserError(f"{path}: not an empty folder; remove it, or give another")
    elif suffix not in WRITERS:
        raise UserError(f"{path}: a sequence goes to {', '.join(WRITERS)} or a folder of numbered images")
    elif suffix == ".mp4":
        _ffmpeg()
    if suffix == ".gif" and fps > MAX_GIF_FPS:
        raise UserError(f"{path}: {fps:g} frames per second, GIF shows no more than {MAX_GIF_FPS}; use .mp4 or .webp")


def write_animation(frames: Iterable[Image.Image], out: str | Path, fps: float) -> None:
    """Write RGB frames of one size, at least one, `fps` per second.

    The suffix of `out` decides: .gif and .webp (which repeat forever) or .mp4 (H.264), each written atomically.
    A folder (see `is_folder`), which must be empty or new, gets 00001.png and so on. Frames of MP4 and PNG are written
    as they come; those of GIF and WebP are held in memory. Raises UserError: before the first frame is asked for if
    `check_animation` does, later if writing fails.
    """
    check_animation(out, fps)
    path = Path(out)
    write = _write_folder if is_folder(out) else WRITERS[path.suffix.lower()]
    write(frames, path, fps)


def _write_folder(frames: Iterable[Image.Image], folder: Path, fps: float) -> None:
    for number, frame in enumerate(frames, start=1):
        atomic_write(folder / ANIMATION_FRAME.format(number), partial(frame.save, format="PNG"))


def _write_gif(frames: Iterable[Image.Image], path: Path, fps: float) -> None:
    """All frames share one palette: with one palette each, a still background would change from frame to frame."""
    images = list(frames)
    chosen = images[:: -(-len(images) // PALETTE_FRAMES)]
    strip = Image.fromarray(np.concatenate([np.asarray(image) for image in chosen]))
    palette = strip.quantize(255)  # of 256 colors; Pillow needs one for the pixels that a frame does not change
    quantized = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    _save_all(quantized, path, fps, unit=10)


def _save_all(frames: Iterable[Image.Image], path: Path, fps: float, unit: int = 1, **settings: int) -> None:
    """Write with Pillow, in the format of the suffix; durations are multiples of `unit` milliseconds."""
    images = list(frames)
    ends = [round(number * 1000 / fps / unit) for number in range(len(images) + 1)]
    durations = [unit * (end - start) for start, end in itertools.pairwise(ends)]  # unequal, so that their sum is exact
    settings |= {"format": path.suffix[1:].upper(), "save_all": True, "append_images": images[1:]}
    atomic_write(path, lambda file: images[0].save(file, duration=durations, loop=0, **settings))


def _write_mp4(frames: Iterable[Image.Image], path: Path, fps: float) -> None:
    """Calls ffmpeg directly, because imageio-ffmpeg's writer does not tell whether the file was finished."""
    # H.264 as browsers show it needs an even width and height: the last column or row of an odd frame is repeated.
    even = (np.pad(frame, ((0, frame.height % 2), (0, frame.width % 2), (0, 0)), mode="edge") for frame in frames)
    first = next(even)
    command = [
        *(_ffmpeg().get_ffmpeg_exe(), "-y", "-v", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}"),
        *("-r", str(Fraction(fps).limit_denominator(1001)), "-i", "-"),
        *("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"),
    ]
    images = itertools.chain([first], even)
    atomic_write(path, lambda file: _run_ffmpeg([*command, os.path.abspath(file.name)], images, path))


def _run_ffmpeg(command: list[str], images: Iterable[np.ndarray], path: Path) -> None:
    """Run ffmpeg with the images as its input. UserError about `path` with ffmpeg's last message if it fails."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as ffmpeg:
        try:
            # A broken pipe means that ffmpeg has ended; its exit status below says why.
            with contextlib.suppress(BrokenPipeError), ffmpeg.stdin:
                for image in images:
                    ffmpeg.stdin.write(image.tobytes())
        except BaseException:
            ffmpeg.kill()
            raise
        if ffmpeg.wait():
            log.seek(0)
            message = _last_line(log.read().decode(errors="replace"))
            raise UserError(f"{path}: could not be written ({message}); what was there before is untouched")


WRITERS = {".gif": _write_gif, ".webp": partial(_save_all, quality=90), ".mp4": _write_mp4}
