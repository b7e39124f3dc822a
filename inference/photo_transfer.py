"""The steps of scripts/transfer.py: from its options to generated images, with the networks loaded in between."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data import find_dataset
from data.pairs import photo_stem
from inference.advice import Advice, has_fatal_warning
from inference.estimators import Estimator, load_estimator
from inference.flicker import flicker
from inference.framed_poses import FramedPoses, frame_poses, frame_sequence, frame_source
from inference.framing import crop, to_frame
from inference.pose_transfer import PoseTransfer
from inference.sources import FoundPeople, PoseSource, find_people, read_people_of, read_photo
from inference.tracks import interpolate
from inference.video import WRITERS, check_animation, is_folder, write_animation
from util.device import describe_device, select_device
from util.draw_pose import draw_skeleton
from util.errors import UserError
from util.image import contact_sheet, save_image, to_pil

DEFAULT_FPS = 25.0
SEQUENCE_SHEET_ROWS = 12


class SourcePhoto(NamedTuple):
    """The photo of the person to generate."""

    image: Image.Image
    people: list[np.ndarray] | None  # (18,2) each in photo pixels, from --source_pose; None: to be estimated


class Networks(NamedTuple):
    transfer: PoseTransfer
    estimator: Estimator | None


class TransferResult(NamedTuple):
    """Source, poses and generated images, all at the stored size, keypoints in its pixels."""

    names: list[str]
    source_image: Image.Image
    source_keypoints: np.ndarray  # (18,2)
    target_keypoints: np.ndarray  # float32 (T,18,2)
    images: Tensor  # uint8 (T,3,H,W)


def keypoint_csv_files(opt: Namespace) -> list[Path]:
    """Where csv:NAME is looked up."""
    if opt.keypoints_csv:
        return [opt.keypoints_csv]
    name = find_dataset(opt.dataset_mode).keypoints_csv
    return [Path(opt.dataroot) / name.format(phase=phase) for phase in ("test", "train")]


def sequence_fps(opt: Namespace, sources: Sequence[PoseSource]) -> float | None:
    """Images per second if the poses are one sequence, None if they are independent."""
    if not (opt.sequence or Path(opt.out).suffix in WRITERS or any(source.count is None for source in sources)):
        return None
    return opt.fps or next((source.fps * (opt.interpolate + 1) for source in sources if source.fps), DEFAULT_FPS)


def check_outputs(opt: Namespace, sources: Sequence[PoseSource], fps: float | None) -> None:
    """UserError for flags that contradict each other, and for results that would be lost or replace an input."""
    out = Path(opt.out)
    if fps is None:
        _check_image_outputs(opt, sources)
    elif not is_folder(opt.out) and out.suffix not in WRITERS:
        raise UserError(f"--out {out}: a sequence goes to {', '.join(WRITERS)} or a folder of numbered images")
    else:
        check_animation(opt.out, fps)
    inputs = [path for path in (opt.source, *map(Path, (*opt.pose, opt.source_pose or ""))) if path.is_file()]
    for flag, path in (("--out", out), ("--sheet", opt.sheet)):
        if path and path.is_file() and any(path.samefile(given) for given in inputs):
            raise UserError(f"{flag} {path}: would replace one of the inputs")
    if opt.sheet and opt.sheet.resolve() == out.resolve():
        raise UserError(f"--sheet {opt.sheet}: is --out too")


def _check_image_outputs(opt: Namespace, sources: Sequence[PoseSource]) -> None:
    if opt.fps or opt.interpolate or not opt.smooth:
        raise UserError("--fps, --interpolate and --no-smooth are for sequences: see --sequence in --help")
    out, count = Path(opt.out), sum(source.count for source in sources)
    if not is_folder(opt.out) and count > 1:
        raise UserError(f"--out {out}: there are {count} poses; name a folder, or .gif, .webp or .mp4")
    if is_folder(opt.out) and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is not a folder; images end in .png or .jpg")
    paths = _image_paths(opt.out, [name for source in sources for name, _ in source.entries])
    if repeated := {str(path) for path in paths if paths.count(path) > 1}:
        raise UserError(f"two poses would be written to {', '.join(sorted(repeated))}; rename one, or use two runs")


def _image_paths(out: str, names: Sequence[str]) -> list[Path]:
    return [Path(out) / f"{photo_stem(name)}.png" if is_folder(out) else Path(out) for name in names]


def read_source(opt: Namespace) -> SourcePhoto:
    photo = read_photo(opt.source)
    if not opt.source_pose:
        return SourcePhoto(photo, None)
    size = (photo.height, photo.width)
    return SourcePhoto(photo, read_people_of(opt.source, opt.source_pose, size, keypoint_csv_files(opt)))


def load_networks(opt: Namespace, needs_estimator: bool) -> Networks:
    device = select_device(opt.gpu_ids)
    transfer = PoseTransfer(opt, device)
    estimator = load_estimator(opt.estimator, opt.estimator_weights, device) if needs_estimator else None
    what = f"{opt.name}, {opt.which_epoch}{f' and {opt.estimator}' if needs_estimator else ''}"
    print(f"{what} on {describe_device(device)}")
    return Networks(transfer, estimator)


def transfer_poses(
    opt: Namespace, networks: Networks, photo: SourcePhoto, sources: Sequence[PoseSource], fps: float | None
) -> TransferResult:
    """Find and frame the people, and generate the person of the photo in all poses; with `fps` as a sequence.

    Raises UserError with all advice on the photo and the poses, unless --force is given and there is a person.
    """
    transfer, estimator = networks
    size = (photo.image.height, photo.image.width)
    people = photo.people
    if people is None:
        people = [person.keypoints for person in estimator.find_people(photo.image)]
    found = FoundPeople(str(opt.source), people, size)
    frame, advice = frame_source(found, transfer.stored_size, opt.dataset_mode)
    fatal = has_fatal_warning(advice)
    if fps is not None:  # a bad photo stops the command before the long search of a video
        report_warnings(advice, opt.force, fatal)
        advice = []
    framed = [_framed_poses(opt, source, networks, fps) for source in sources]
    names = [name for poses in framed for name in poses.names]
    advice += [one for poses in framed for one in poses.advice]
    report_warnings(advice, opt.force, fatal or not names)

    targets = interpolate(np.concatenate([poses.keypoints for poses in framed]), opt.interpolate).astype(np.float32)
    source_image, source_keypoints = crop(photo.image, frame), to_frame(people[0], frame)
    images = _generate(transfer, source_image, source_keypoints, targets)
    return TransferResult(names, source_image, source_keypoints, targets, images)


def report_warnings(advice: Sequence[Advice], force: bool, fatal: bool) -> None:
    """Raise UserError with all advice; with `force` print it as warnings instead, unless it is fatal."""
    if not advice:
        return
    lines = "\n".join(one.text for one in advice)
    if fatal or not force:
        raise UserError(lines if fatal else f"{lines}\n(--force generates all the same)")
    print("\n".join(f"warning: {line}" for line in lines.splitlines()), file=sys.stderr)


def _framed_poses(opt: Namespace, source: PoseSource, networks: Networks, fps: float | None) -> FramedPoses:
    """The poses of one value of --pose in pixels of the stored size."""
    size, style = networks.transfer.stored_size, opt.dataset_mode
    keep = {"keep": True, "fit": False, None: source.in_stored_pixels or None}[opt.pose_frame]
    no_bar = None if source.needs_estimator else True  # None: no bar unless stderr is a terminal
    people = find_people(source, networks.estimator)
    found = list(tqdm(people, source.what, source.count, unit="pose", disable=no_bar))
    if fps is None:
        return frame_poses(found, size, style, keep)
    pose_fps = source.fps or fps / (opt.interpolate + 1)
    return frame_sequence(found, size, style, keep, pose_fps, opt.smooth, source.what)


def _generate(transfer: PoseTransfer, image: Image.Image, source: np.ndarray, targets: np.ndarray) -> Tensor:
    """Stored-size image, (18,2) and (T,18,2) -> uint8 (T,3,H,W), a batch at a time behind a progress bar."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    batch = transfer.opt.batchSize
    starts = tqdm(range(0, len(targets), batch), "generating", unit="batch", disable=None)
    return torch.cat([transfer(pixels, source, targets[start : start + batch]) for start in starts])


def save_images(result: TransferResult, out: str) -> None:
    """Write each image, to `out` or as POSE.png in the folder `out`, and print its path."""
    for image, path in zip(result.images, _image_paths(out, result.names)):
        save_image(to_pil(image), path)
        print(path)


def save_sequence(result: TransferResult, out: str, fps: float) -> None:
    """Write an animation, or numbered images, and print how much its background flickers."""
    count = write_animation(map(to_pil, result.images), out, fps)
    print(f"{count} images, {fps:g} per second, in {out}")
    if count > 1:
        levels = flicker(result.images.numpy(), result.target_keypoints)
        print(f"flicker outside the person: {levels:.2f} of 255 levels from one image to the next")


def comparison_sheet(result: TransferResult, max_rows: int) -> Image.Image:
    """Source, its skeleton, the pose's skeleton and the generated image: a row for each pose, or for `max_rows`."""
    size = (result.source_image.height, result.source_image.width)
    count = len(result.images)
    rows = np.linspace(0, count - 1, min(max_rows, count)).round().astype(int)
    source = [result.source_image, draw_skeleton(result.source_keypoints, size)]
    return contact_sheet(
        [[*source, draw_skeleton(result.target_keypoints[row], size), to_pil(result.images[row])] for row in rows]
    )
