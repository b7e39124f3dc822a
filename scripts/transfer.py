"""Your own photo, your own pose: the person of one photo, drawn in the poses of other photos, videos or files.

    python scripts/transfer.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --out out.png

--help says what a pose may be, and when the poses are a sequence.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import find_dataset
from data.pairs import photo_stem
from inference import sources
from inference.advice import Advice
from inference.estimators import ESTIMATORS, Estimator, load_estimator
from inference.framing import crop, to_frame
from inference.pose_transfer import PoseTransfer
from inference.tracks import flicker, interpolate
from inference.transfer_options import TransferOptions
from inference.video import WRITERS, write_animation
from util.device import describe_device, select_device
from util.draw_pose import draw_skeleton
from util.errors import UserError, run_main
from util.image import contact_sheet, save_image, stretch, to_pil

USUAL_FPS = 25.0
SHEET_ROWS = 12  # of a sequence


class Drawn(NamedTuple):
    """All at the stored size, keypoints in its pixels."""

    names: list[str]
    photo: Image.Image
    source: np.ndarray  # (18,2)
    targets: np.ndarray  # (T,18,2)
    images: Tensor  # uint8 (T,3,H,W)
    loading: float  # seconds that the networks took to load


def main() -> None:
    opt = TransferOptions().parse()
    start = time.perf_counter()
    csv_files = keypoint_files(opt)
    given = [sources.find_poses(text, csv_files, opt.every) for text in opt.pose]
    sequence = opt.sequence or Path(opt.out).suffix in WRITERS or any(poses.count is None for poses in given)
    check(opt, given, sequence)
    photo = sources.read_photo(opt.source)
    size = (photo.height, photo.width)
    own = sources.find_own_pose(opt.source_pose, opt.source, size, csv_files) if opt.source_pose else None

    fps = None
    if sequence:
        fps = opt.fps or next((poses.fps * (opt.interpolate + 1) for poses in given if poses.fps), USUAL_FPS)
    work = lru_cache(partial(draw_poses, opt, photo, own, given, fps))

    def pictures() -> Iterator[Image.Image]:
        """The work begins when the first is asked for: `write_animation` looks first whether it can write."""
        yield from map(to_pil, work().images)

    if sequence:
        write_animation(pictures(), opt.out, fps)
        print(f"{len(work().images)} pictures, {fps:g} a second, in {opt.out}")
        if len(work().images) > 1:
            levels = flicker(work().images.numpy(), work().targets)
            print(f"flicker outside the person: {levels:.2f} of 255 levels from one picture to the next")
    else:
        for picture, path in zip(pictures(), picture_paths(opt.out, work().names)):
            save_image(picture, path)
            print(path)
    drawn = work()
    if opt.sheet:
        save_image(sheet(drawn, SHEET_ROWS if sequence else len(drawn.images)), opt.sheet)
    seconds = time.perf_counter() - start - drawn.loading
    each = seconds / len(drawn.images)
    print(f"{each:.2f} s a picture, from file to file, and {drawn.loading:.1f} s to load the networks")


def keypoint_files(opt: Namespace) -> list[Path]:
    """Where csv:NAME looks."""
    if opt.keypoints_csv:
        return [opt.keypoints_csv]
    name = find_dataset(opt.dataset_mode).keypoints_csv
    return [Path(opt.dataroot) / name.format(phase=phase) for phase in ("test", "train")]


def check(opt: Namespace, given: Sequence[sources.Poses], sequence: bool) -> None:
    """UserError for flags that do not go together, and for results that would be lost or would replace an input."""
    out, is_file = Path(opt.out), not is_folder(opt.out)
    if sequence:
        if is_file and out.suffix not in WRITERS:
            raise UserError(f"--out {out}: a sequence goes to {', '.join(WRITERS)} or a folder of numbered pictures")
    else:
        if opt.fps or opt.interpolate or not opt.smooth:
            raise UserError("--fps, --interpolate and --no-smooth are for sequences: see --sequence in --help")
        count = sum(poses.count for poses in given)
        if is_file and count > 1:
            raise UserError(f"--out {out}: there are {count} poses; name a folder, or .gif, .webp or .mp4")
        if not is_file and out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is no folder; pictures end in .png or .jpg")
        paths = picture_paths(opt.out, [name for poses in given for name, _ in poses.found])
        if twice := {str(path) for path in paths if paths.count(path) > 1}:
            raise UserError(f"two poses would be drawn in {', '.join(sorted(twice))}; rename one, or draw it apart")
    inputs = [opt.source, *map(Path, (*opt.pose, opt.source_pose or ""))]
    for flag, path in (("--out", out), ("--sheet", opt.sheet)):
        if path and path.is_file() and any(path.samefile(given) for given in inputs if given.is_file()):
            raise UserError(f"{flag} {path}: would replace one of the inputs")
    if opt.sheet and opt.sheet.resolve() == out.resolve():
        raise UserError(f"--sheet {opt.sheet}: is --out too")


def is_folder(out: str) -> bool:
    return out.endswith("/") or not Path(out).suffix or Path(out).is_dir()


def picture_paths(out: str, names: Sequence[str]) -> list[Path]:
    """Where the picture of each pose goes."""
    return [Path(out) / f"{photo_stem(name)}.png" if is_folder(out) else Path(out) for name in names]


def draw_poses(
    opt: Namespace,
    photo: Image.Image,
    own: sources.People | None,
    given: Sequence[sources.Poses],
    fps: float | None,
) -> Drawn:
    """Load the networks, find the people, frame and draw them.

    `own` are the people of the photo, if they are known; `fps` pictures a second make a sequence.
    """
    start = time.perf_counter()
    device = select_device(opt.gpu_ids)
    transfer = PoseTransfer(opt, device)
    needed = own is None or any(poses.searched for poses in given)
    estimator = load(opt, device) if needed else None
    loading = time.perf_counter() - start
    print(f"{opt.name}, {opt.which_epoch}{f' and {opt.estimator}' if needed else ''} on {describe_device(device)}")

    people = [person.keypoints for person in estimator.people(photo)] if own is None else own
    found = sources.Pose(str(opt.source), people, (photo.height, photo.width))
    frame, advice = sources.view(found, transfer.stored_size, opt.dataset_mode)
    hopeless = any(one.fatal for one in advice)
    if fps is not None:  # before the long search of a video
        settle(advice, opt.force, hopeless)
        advice = []
    parts = [placed(opt, poses, estimator, transfer.stored_size, fps) for poses in given]
    names = [name for part in parts for name in part.names]
    settle([*advice, *(one for part in parts for one in part.advice)], opt.force, hopeless or not names)

    source, framed = to_frame(people[0], frame), crop(photo, frame)
    targets = np.concatenate([part.keypoints for part in parts])
    targets = interpolate(targets, opt.interpolate).astype(np.float32)
    return Drawn(names, framed, source, targets, draw(transfer, framed, source, targets), loading)


def load(opt: Namespace, device: torch.device) -> Estimator:
    uses_gpu = ESTIMATORS[opt.estimator].uses_gpu
    return load_estimator(opt.estimator, opt.estimator_weights, device if uses_gpu else torch.device("cpu"))


def placed(
    opt: Namespace, poses: sources.Poses, estimator: Estimator | None, size: tuple[int, int], fps: float | None
) -> sources.Placed:
    """The poses of one value of --pose in the stored picture, of `size` (H, W)."""
    keep = {"keep": True, "fit": False, None: poses.stored or None}[opt.pose_frame]
    silent = None if poses.searched else True  # None: where this is no terminal
    found = list(tqdm(sources.search(poses, estimator), poses.what, poses.count, unit="pose", disable=silent))
    if fps is None:
        return sources.place(found, size, opt.dataset_mode, keep)
    rate = poses.fps or fps / (opt.interpolate + 1)
    return sources.place_sequence(found, size, opt.dataset_mode, keep, rate, opt.smooth, poses.what)


def settle(advice: Sequence[Advice], force: bool, hopeless: bool) -> None:
    """UserError with all advice; with --force only print it, unless there is nothing to go on with."""
    if not advice:
        return
    lines = "\n".join(one.text for one in advice)
    if hopeless or not force:
        raise UserError(lines if hopeless else f"{lines}\n(--force goes on all the same)")
    print("\n".join(f"warning: {line}" for line in lines.splitlines()), file=sys.stderr)


def draw(transfer: PoseTransfer, photo: Image.Image, source: np.ndarray, targets: np.ndarray) -> Tensor:
    """Stored-size photo, (18,2) and (T,18,2) -> uint8 (T,3,H,W), a batch at a time."""
    pixels = stretch(photo, transfer.stored_size)
    batch = transfer.opt.batchSize
    starts = tqdm(range(0, len(targets), batch), "drawing", unit="batch", disable=None)
    return torch.cat([transfer(pixels, source, targets[start : start + batch]) for start in starts])


def sheet(drawn: Drawn, rows: int) -> Image.Image:
    """Source, its skeleton, the pose's skeleton and the result: a row a pose, of more than `rows` some."""
    size = (drawn.photo.height, drawn.photo.width)
    last = len(drawn.images) - 1
    chosen = np.linspace(0, last, min(rows, last + 1)).round().astype(int)
    source = [drawn.photo, draw_skeleton(drawn.source, size)]
    return contact_sheet(
        [[*source, draw_skeleton(drawn.targets[row], size), to_pil(drawn.images[row])] for row in chosen]
    )


if __name__ == "__main__":
    run_main(main)
