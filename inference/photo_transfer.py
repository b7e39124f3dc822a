"""The steps of scripts/transfer.py: check the options, find and frame the people, generate images, save them."""

import math
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data import find_dataset
from data.keypoints import NUM_JOINTS
from data.pairs import result_stem
from inference.advice import Advice, advise, is_fatal
from inference.estimators import Estimator
from inference.flicker import flicker
from inference.framing import Frame, can_be_framed, crop, frame_people, frame_person, identity_frame, to_frame
from inference.people import Person, describe_choice, first_pose
from inference.pose_transfer import PoseTransfer
from inference.sources import FoundPeople, KeypointCsvs, PoseSource, find_people
from inference.tracks import clean, interpolate
from inference.video import ANIMATION_FRAME, WRITERS, check_animation, is_folder, write_animation
from util.draw_pose import draw_skeleton
from util.errors import UserError, summarize
from util.files import check_name_lengths, check_writable
from util.image import contact_sheet, from_pil, is_photo, save_image, to_pil

DEFAULT_FPS = 25.0
SEQUENCE_SHEET_ROWS = 12
MAX_JPEG_HEIGHT = 65_500  # pixels, libjpeg's limit
MAX_BAD_POSES = 0.1  # fraction of a sequence: advice on so few poses is dropped; their neighbors hide the faults
VIEW_SECONDS = 0.5  # standard deviation of the Gaussian that averages the path of a sequence's view


class FramedPoses(NamedTuple):
    """Poses in pixels of the stored size, and what is wrong with them."""

    names: list[str]
    keypoints: np.ndarray  # float32 (T,18,2) of (y, x)
    advice: list[Advice]


class TransferResult(NamedTuple):
    """Source, poses and generated images, all at the stored size, keypoints in its pixels."""

    names: list[str]  # of the poses: T, or fewer where --interpolate added poses between them
    source_image: Image.Image
    source_keypoints: np.ndarray  # (18,2) of (y, x)
    target_keypoints: np.ndarray  # float32 (T,18,2) of (y, x)
    images: Tensor  # uint8 (T,3,H,W)


def keypoint_csvs(opt: Namespace) -> KeypointCsvs:
    """Where csv:NAME is looked up: in --keypoints_csv, else in the data set's files."""
    dataset = find_dataset(opt.dataset_mode)
    if opt.keypoints_csv:
        return KeypointCsvs([opt.keypoints_csv])
    files = [Path(opt.dataroot) / dataset.keypoints_csv.format(phase=phase) for phase in ("test", "train")]
    return KeypointCsvs(files, dataset.csv_scale())


def sequence_fps(opt: Namespace, sources: Sequence[PoseSource]) -> float | None:
    """Images per second if the poses are one sequence, None if they are independent."""
    if not (opt.sequence or Path(opt.out).suffix in WRITERS or any(source.count is None for source in sources)):
        return None
    return opt.fps or next((source.fps * (opt.interpolate + 1) for source in sources if source.fps), DEFAULT_FPS)


def check_outputs(opt: Namespace, sources: Sequence[PoseSource], fps: float | None) -> None:
    """UserError for flags that contradict each other, and for results that cannot be written, or would replace an input
    or each other."""
    if fps:
        check_animation(opt.out, fps)
        written = [Path(opt.out, ANIMATION_FRAME.format(1)) if is_folder(opt.out) else Path(opt.out)]
    else:
        written = _check_image_outputs(opt, sources)
    if opt.sheet and opt.sheet.resolve() in {path.resolve() for path in (*written, Path(opt.out))}:
        raise UserError(f"--sheet {opt.sheet}: is --out too")
    named = filter(None, (opt.source, *opt.pose, opt.source_pose))
    # os.path.exists, because Path.exists raises for a long csv:NAME
    inputs = [os.path.realpath(text) for text in named if os.path.exists(text)]
    outputs = [("--out", path) for path in written] + ([("--sheet", opt.sheet)] if opt.sheet else [])
    for flag, path in outputs:
        real = Path(os.path.realpath(path))
        is_old_photo = path.exists() and is_photo(path)  # an input too, if it lies in a folder that --pose names
        if any(real == Path(given) or (is_old_photo and real.is_relative_to(given)) for given in inputs):
            raise UserError(f"{flag} {path}: would replace one of the inputs")
    for _, path in (outputs[0], outputs[-1]):  # all images go to one folder, so the first stands for them
        check_writable(path)


def _check_image_outputs(opt: Namespace, sources: Sequence[PoseSource]) -> list[Path]:
    """The files of independent images. UserError for flags and names with which they cannot be written."""
    out, count = Path(opt.out), sum(source.count for source in sources)
    if opt.fps or opt.interpolate or not opt.smooth:
        raise UserError("--fps, --interpolate and --no-smooth are for sequences: see --sequence in --help")
    if not is_folder(opt.out) and count > 1:
        raise UserError(f"--out {out}: there are {count} poses; name a folder, or .gif, .webp or .mp4")
    if is_folder(opt.out) and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; images end in .png or .jpg")
    height = find_dataset(opt.dataset_mode).stored_size[0]
    if opt.sheet and opt.sheet.suffix.lower() in (".jpg", ".jpeg") and count * height > MAX_JPEG_HEIGHT:
        raise UserError(f"--sheet {opt.sheet}: JPEG cannot hold {count} rows of {height} pixels; give .png")
    paths = _image_paths(opt.out, [name for source in sources for name, _ in source.entries])
    check_name_lengths([path.name for path in paths], "the names of the poses, of which each result's name is made")
    if repeated := {str(path) for path, number in Counter(paths).items() if number > 1}:
        raise UserError(f"two poses would be written to {', '.join(sorted(repeated))}; rename one, or use two runs")
    return paths


def _image_paths(out: str, names: Sequence[str]) -> list[Path]:
    return [Path(out) / f"{result_stem(name)}.png" if is_folder(out) else Path(out) for name in names]


def transfer_poses(
    opt: Namespace, transfer: PoseTransfer, estimator: Estimator | None, photo: Image.Image,
    people: list[Person] | None, sources: Sequence[PoseSource], fps: float | None,
) -> TransferResult:  # fmt: skip
    """Find and frame the people, and generate the person of the photo in all poses; with `fps` as a sequence.

    people: those of `photo`, the most prominent first; None: the estimator finds them. Where there are several, a line
    says who was taken.

    Raises UserError with all advice on the photo and the poses, unless --force is given and there is a person.
    """
    if people is None:
        people = estimator.find_people(photo)
    found = FoundPeople(str(opt.source), people, (photo.height, photo.width))
    _report_choices([found])
    frame, advice = frame_source(found, transfer.stored_size, opt.dataset_mode)
    fatal = is_fatal(advice)
    if fps:  # a bad photo stops the command before the long search of a video
        _report_advice(advice, opt.force, fatal)
        advice = []
    framed = [_find_and_frame(opt, transfer.stored_size, source, estimator, fps) for source in sources]
    names = [name for poses in framed for name in poses.names]
    advice += [one for poses in framed for one in poses.advice]
    _report_advice(advice, opt.force, fatal or not names)

    targets = interpolate(np.concatenate([poses.keypoints for poses in framed]), opt.interpolate).astype(np.float32)
    image, keypoints = crop(photo, frame), to_frame(people[0].keypoints, frame)
    pixels = from_pil(image)
    batches = tqdm(torch.from_numpy(targets).split(opt.batchSize), "generating", unit="batch", disable=None)
    images = torch.cat([transfer(pixels, keypoints, batch) for batch in batches])
    return TransferResult(names, image, keypoints, targets, images)


def _report_advice(advice: Sequence[Advice], force: bool, fatal: bool) -> None:
    """Raise UserError with all advice; with `force` print it as warnings instead, unless it is fatal."""
    lines = [one.text for one in advice]
    if advice and (fatal or not force):
        raise UserError("\n".join(lines if fatal else [*lines, "(--force generates all the same)"]))
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


def _report_choices(photos: Sequence[FoundPeople]) -> None:
    """Print who was taken where a photo or pose shows several people, and what the next one is like."""
    several = [f"{found.name}: {describe_choice(found.people)}" for found in photos if len(found.people) > 1]
    if several:
        print(f"the most prominent of several people was taken:\n{summarize(several, 3)}")


def _find_and_frame(
    opt: Namespace, size: tuple[int, int], source: PoseSource, estimator: Estimator | None, fps: float | None
) -> FramedPoses:
    """The poses of one value of --pose in pixels of the stored size (H, W)."""
    in_stored_pixels = source.in_stored_pixels or None  # None: by the photos' size
    if opt.pose_frame:
        in_stored_pixels = opt.pose_frame == "keep"
    no_bar = None if source.needs_estimator else True  # None: no bar unless stderr is a terminal
    found = list(tqdm(find_people(source, estimator), source.what, source.count, unit="pose", disable=no_bar))
    _report_choices(found)
    pose_fps = fps and (source.fps or fps / (opt.interpolate + 1))
    return frame_poses(found, size, opt.dataset_mode, in_stored_pixels, pose_fps, opt.smooth, source.what)


def frame_source(found: FoundPeople, size: tuple[int, int], dataset_mode: str) -> tuple[Frame | None, list[Advice]]:
    """How the source photo is framed to `size` (H, W), and what is wrong with it.

    None: its person cannot be framed. A photo of the stored size has a frame even if it shows nobody; see `is_fatal`.
    """
    frame = None
    if found.photo_size == size:
        frame = identity_frame(size)
    elif can_be_framed(pose := first_pose(found.people)):
        frame = frame_person(pose, size, dataset_mode)
    return frame, advise(found.people, found.photo_size, frame, found.name)


def frame_poses(
    poses: Sequence[FoundPeople], size: tuple[int, int], dataset_mode: str, in_stored_pixels: bool | None,
    fps: float | None = None, smooth: bool = False, what: str = "",
) -> FramedPoses:  # fmt: skip
    """The first person of each photo, framed to `size` (H, W) as the data set `dataset_mode` frames people.

    in_stored_pixels: the keypoints are in pixels of the stored size already; None: if their photo has that size.
    fps: poses per second of a sequence `what`, which is framed as one, and with `smooth` cleaned (inference/tracks.py);
        None: each pose is framed by itself.

    Photos without a person are left out, unless `smooth` fills them in. The advice on them is fatal if poses are framed
    by themselves, or if the whole sequence has nobody.
    """
    track = np.array([first_pose(found.people) for found in poses])
    if fps and smooth:
        track = clean(track, fps)
    advice_by_pose = [
        advise(_replace_first(found.people, pose), None, None, found.name) for pose, found in zip(track, poses)
    ]
    usable = [number for number, advice in enumerate(advice_by_pose) if not is_fatal(advice)]
    for group in [usable] if fps else [[number] for number in usable]:  # poses that are framed as one
        is_framed = in_stored_pixels
        if is_framed is None:
            is_framed = all(poses[number].photo_size == size for number in group)
        if group and not is_framed:
            frames = frame_people(track[group], size, dataset_mode, VIEW_SECONDS * fps if fps else 1.0)
            track[group] = [to_frame(pose, frame) for pose, frame in zip(track[group], frames)]
    if fps:
        advice = _summarize_advice(advice_by_pose, bool(usable), what)
    else:
        advice = [one for advice_on_pose in advice_by_pose for one in advice_on_pose]
    keypoints = track[usable].reshape(-1, NUM_JOINTS, 2).astype(np.float32)
    return FramedPoses([poses[number].name for number in usable], keypoints, advice)


def _replace_first(people: Sequence[Person], pose: np.ndarray) -> list[Person]:
    """`people` with `pose` (18,2) in place of the first one's; nobody if it is all NaN. `people` may be empty."""
    confidence = people[0].confidence if people else 1.0
    return [] if np.isnan(pose).all() else [Person(pose, confidence), *people[1:]]


def _summarize_advice(advice_by_pose: list[list[Advice]], any_usable: bool, what: str) -> list[Advice]:
    """One piece of advice for a whole sequence; fatal if no pose is usable, none if few poses are bad."""
    bad = [advice[0] for advice in advice_by_pose if advice]
    if any_usable and len(bad) <= MAX_BAD_POSES * len(advice_by_pose):
        return []
    several = len(advice_by_pose) > 1
    prefix = f"{what}: {len(bad)} of {len(advice_by_pose)} poses have faults, the first is " if several else ""
    return [Advice(f"{prefix}{bad[0].text}", fatal=not any_usable)]


def save_results(opt: Namespace, result: TransferResult, fps: float | None) -> None:
    """Write the files that --out and --sheet name. Print the path of each image, or of a sequence its length, rate,
    path and how much its background flickers.

    fps: images per second of a sequence; None: independent images, POSE.png each if --out is a folder.
    """
    count = len(result.images)
    if not fps:
        for image, path in zip(result.images, _image_paths(opt.out, result.names)):
            save_image(to_pil(image), path)
            print(path)
    else:
        write_animation(map(to_pil, result.images), opt.out, fps)
        print(f"{count} images, {fps:g} per second, in {opt.out}")
        levels = flicker(result.images.numpy(), result.target_keypoints) if count > 1 else math.nan
        if not math.isnan(levels):  # people may fill the images
            print(f"flicker outside the person: {levels:.2f} of 255 levels from one image to the next")
    if opt.sheet:
        save_image(comparison_sheet(result, SEQUENCE_SHEET_ROWS if fps else count), opt.sheet)


def comparison_sheet(result: TransferResult, max_rows: int) -> Image.Image:
    """Source, its skeleton, the pose's skeleton and the generated image: a row for each pose, or for `max_rows`."""
    size, count = result.source_image.size[::-1], len(result.images)
    rows = np.linspace(0, count - 1, min(max_rows, count)).round().astype(int)
    source = [result.source_image, draw_skeleton(result.source_keypoints, size)]
    return contact_sheet(
        [[*source, draw_skeleton(result.target_keypoints[row], size), to_pil(result.images[row])] for row in rows]
    )
