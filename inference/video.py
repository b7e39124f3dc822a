"""Frames in and out: folders of photos, videos and animations, one frame at a time.

Videos need imageio-ffmpeg (`pip install imageio-ffmpeg`), which brings its own ffmpeg; GIF and WebP need Pillow only.
"""

import contextlib
import itertools
import logging
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from util.errors import UserError
from util.files import atomic_write, natural_sort_key
from util.image import decode_photo, is_photo

VIDEOS = (".mp4", ".mov", ".avi", ".webm", ".mkv")
ANIMATIONS = (".gif", ".webp")
NO_DURATION = 100  # milliseconds that viewers show a frame for whose file says 0
PALETTE_FRAMES = 16  # of an animation, from which a GIF takes its colors

Frames = Iterator[tuple[str, Image.Image]]


def read_frames(path: str | Path, every: int = 1) -> tuple[Frames, float | None]:
    """(name, RGB picture) of every `every`-th frame, and how many of these make a second (None: the file does not say).

    `path` is a folder of photos, in the order of the numbers in their names (frame2 before frame10), whose rate is not
    known, or a video or an animated picture. Names are those of the photos, or NAME_00001 and so on by the number in
    the video. Photos and videos that say how they were held come upright. One frame at a time is in memory. An
    animation's frame that is shown for longer than usual comes that many times. Raises UserError at once for what
    cannot be opened, and on the way for a frame that cannot be decoded.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder of frames")
    if path.is_dir():
        frames, fps = _photos(path), None
    elif path.suffix.lower() in VIDEOS:
        frames, fps = _video(path)
    elif path.suffix.lower() in ANIMATIONS:
        frames, fps = _animation(path)
    else:
        raise UserError(
            f"{path}: not a folder of photos, nor a video or an animation ({', '.join(VIDEOS + ANIMATIONS)})"
        )
    chosen = ((name, picture()) for name, picture in itertools.islice(frames, 0, None, every))
    return chosen, fps and fps / every


Undecoded = Iterator[tuple[str, Callable[[], Image.Image]]]


def _photos(folder: Path) -> Undecoded:
    paths = sorted(filter(is_photo, folder.iterdir()), key=lambda path: (natural_sort_key(path.name), path.name))
    if not paths:
        raise UserError(f"{folder}: no photos (jpg or png) in it")
    return ((path.name, partial(_upright, path)) for path in paths)


def _upright(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(decode_photo(path))


def _animation(path: Path) -> tuple[Undecoded, float]:
    """Files hold a frame that stays as one of a longer duration: it comes as often as it is longer than usual."""
    durations = [duration for duration, _ in _shown(path)]
    usual = statistics.median_low(durations)
    copies = [max(1, round(duration / usual)) for duration in durations]
    pictures = itertools.chain.from_iterable(
        itertools.repeat(picture, times) for times, (_, picture) in zip(copies, _shown(path))
    )
    named = (
        (f"{path.stem}_{number:05d}", partial(picture.convert, "RGB")) for number, picture in enumerate(pictures, 1)
    )
    return named, 1000 * sum(copies) / sum(durations)


def _shown(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """(milliseconds, picture) of each frame of an animation."""
    try:
        with Image.open(path) as file:
            for picture in ImageSequence.Iterator(file):
                picture.load()  # WebP knows a frame's duration only then
                yield picture.info.get("duration") or NO_DURATION, picture
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def _video(path: Path) -> tuple[Undecoded, float | None]:
    square = ["-vf", "scale=iw*sar:ih,setsar=1"]  # pixels: those of some cameras are not
    reader = _ffmpeg().read_frames(str(path), output_params=square)
    try:
        about = next(reader)
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a video ({_last_line(error)})") from error
    return _video_frames(path, reader, about), about["fps"] or None


def _video_frames(path: Path, reader: Iterator[bytes], about: dict) -> Undecoded:
    number = 0
    try:
        for number, pixels in enumerate(reader, start=1):
            yield f"{path.stem}_{number:05d}", partial(Image.frombytes, "RGB", about["size"], pixels)
    except RuntimeError as error:
        raise UserError(f"{path}: frame {number + 1} cannot be decoded ({_last_line(error)})") from error
    expected = round(about["fps"] * about["duration"])
    if number < min(expected - 2, 0.95 * expected) or not number:  # durations are rounded, and those of the sound
        raise UserError(f"{path}: only {number} of about {expected} frames can be decoded; is the file complete?")


def _last_line(said: object) -> str:
    return (str(said).strip().splitlines() or ["no reason given"])[-1].strip()


def _ffmpeg() -> ModuleType:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("videos need imageio-ffmpeg: pip install imageio-ffmpeg") from error
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of each video that was held upright
    return imageio_ffmpeg


def write_animation(frames: Iterable[Image.Image], path: str | Path, fps: float) -> int:
    """Writes RGB pictures of one size, `fps` a second; returns how many.

    By the ending of `path`: .gif and .webp (which repeat for ever), .mp4 (H.264), each written whole or not at all; or,
    where it has none, ends in '/' or is a folder, 00001.png and so on in that folder, which must be empty. Frames of
    MP4 and PNG are written as they come; those of GIF and WebP are held in memory until the last. Raises UserError
    before the first frame is asked for where `path` cannot be written.
    """
    as_folder = str(path).endswith(("/", "\\")) or not Path(path).suffix or Path(path).is_dir()
    write = _write_folder if as_folder else WRITERS.get(Path(path).suffix.lower())
    path = Path(path)
    if write is None:
        raise UserError(f"{path}: endings known are {', '.join(WRITERS)}; a folder gets numbered PNG files")
    if fps <= 0:
        raise UserError(f"{path}: {fps} frames a second; it must be more than 0")
    return write(_of_one_size(frames, path), path, fps)


def _of_one_size(frames: Iterable[Image.Image], path: Path) -> Iterator[Image.Image]:
    """The frames as RGB. Raises UserError where there is none, or one of another size than the first."""
    size = None
    for number, frame in enumerate(frames, start=1):
        size = size or frame.size
        if frame.size != size:
            sizes = f"{frame.width} x {frame.height} pixels, the first {size[0]} x {size[1]}"
            raise UserError(f"{path}: frame {number} has {sizes}; all frames need one size")
        yield frame.convert("RGB")
    if size is None:
        raise UserError(f"{path}: no frames to write")


def _write_folder(frames: Iterator[Image.Image], folder: Path, fps: float) -> int:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not an empty folder; remove it, or give another")
    for number, frame in enumerate(frames, start=1):
        atomic_write(folder / f"{number:05d}.png", partial(frame.save, format="PNG"))
    return number


def _write_gif(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    """One palette for all frames, for with one each a still background would change from frame to frame."""
    if fps > 50:
        raise UserError(f"{path}: {fps:g} frames a second, and GIF shows no more than 50; write .mp4 or .webp")
    pictures = list(frames)
    chosen = pictures[:: -(-len(pictures) // PALETTE_FRAMES)]
    width, height = pictures[0].size
    strip = Image.new("RGB", (width, height * len(chosen)))
    for row, picture in enumerate(chosen):
        strip.paste(picture, (0, row * height))
    palette = strip.quantize(255)  # leaves one for what stays as it was
    first, *rest = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = _durations(len(pictures), fps, 10)
    how = {"format": "GIF", "save_all": True, "append_images": rest, "duration": durations, "loop": 0}
    atomic_write(path, lambda file: first.save(file, **how))
    return len(pictures)


def _write_webp(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    first, *rest = frames
    durations = _durations(1 + len(rest), fps, 1)
    how = {"format": "WEBP", "save_all": True, "append_images": rest, "duration": durations, "loop": 0, "quality": 90}
    atomic_write(path, lambda file: first.save(file, **how))
    return 1 + len(rest)


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Milliseconds of each frame in whole `unit`s, which differ so that the sum is right."""
    ends = [round(number * 1000 / fps / unit) for number in range(count + 1)]
    return [unit * (end - start) for start, end in itertools.pairwise(ends)]


def _write_mp4(frames: Iterator[Image.Image], path: Path, fps: float) -> int:
    """Through ffmpeg itself, for imageio-ffmpeg's writer does not tell whether the file was finished.

    H.264 as browsers show it wants even sides: an odd picture's last row or column comes twice.
    """
    program = _ffmpeg().get_ffmpeg_exe()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    even = (np.pad(frame, ((0, frame.height % 2), (0, frame.width % 2), (0, 0)), mode="edge") for frame in frames)
    first = next(even)
    command = [
        *(program, "-y", "-v", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}"),
        *("-r", str(Fraction(fps).limit_denominator(1001)), "-i", "-"),
        *("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4"),
        str(unfinished.absolute()),
    ]
    try:
        written = _feed(command, itertools.chain([first], even), path)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _feed(command: list[str], pictures: Iterable[np.ndarray], path: Path) -> int:
    """Runs ffmpeg with the pictures as its input; returns how many. UserError with its last words where it fails."""
    written = 0
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as ffmpeg:
        try:
            with contextlib.suppress(BrokenPipeError), ffmpeg.stdin:  # it has ended: its status says why
                for picture in pictures:
                    ffmpeg.stdin.write(picture.tobytes())
                    written += 1
        except BaseException:
            ffmpeg.kill()
            raise
        if ffmpeg.wait():
            log.seek(0)
            words = _last_line(log.read().decode(errors="replace"))
            raise UserError(f"{path}: could not be written ({words}); what was there before is untouched")
    return written


WRITERS = {".gif": _write_gif, ".webp": _write_webp, ".mp4": _write_mp4}
