"""Turns raw DeepFashion photos into train/ and test/ of the data set, named, cropped and split as PATN did.

    python data/generate_fashion_datasets.py                                  # all in ./dataset/fashion
    python data/generate_fashion_datasets.py --raw /disk/DeepFashion/img      # photos elsewhere
    python data/generate_fashion_datasets.py --dataset_mode fashion512        # 352 x 512, in ./dataset/fashion512

You need the low-resolution archive (256 x 256 photos) of the in-shop clothes retrieval benchmark, unpacked anywhere
below --raw, with or without its folder img; and train.lst and test.lst, PATN's lists of names, in --dataroot.

    WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg -> fashionWOMENTees_Tanksid0000783805_7additional.jpg

Columns 40 to 215 are kept: 176 x 256 pixels (width x height). --dataset_mode fashion512 needs the high-resolution
archive (img_highres, 750 x 1101) instead and scales it to 352 x 512, with every joint where PATN's keypoints have it.

Nothing is deleted or overwritten, so a run that was stopped can be resumed. Exit status: 0 all listed photos exist,
1 some are missing or unusable, 2 the command could not start.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import find_dataset
from data.fashion_dataset import FashionDataset
from data.pairs import PHASES
from util.arguments import number, positive_int
from util.errors import UserError, run_main, summarize
from util.files import atomic_write, file_names
from util.image import decode_photo, describe_skipped, is_photo, photo_size, read_list, size_problem
from util.worker_processes import available_cores, map_in_processes

GENDERS = ("MEN", "WOMEN")
RAW_SIZE = (256, 256)  # (H, W) of the low-resolution archive
MARGIN = (RAW_SIZE[1] - FashionDataset.stored_size[1]) // 2  # columns cut off at the left and at the right
CROP = (MARGIN, 0, RAW_SIZE[1] - MARGIN, RAW_SIZE[0])  # left, top, right, bottom
HIGHRES_ASPECT = 750 / 1101  # width / height of the high-resolution archive
STATES = ("already there", "written", "unusable", "missing")  # of a listed photo


def stored_name(raw: Path) -> str:
    """.../GENDER/CATEGORY/ID/FILE -> the .jpg in the data set: ID without underscores, FILE with its first one only."""
    gender, category, item, file = raw.with_suffix(".jpg").parts[-4:]
    outfit, _, view = file.partition("_")
    return f"fashion{gender}{category}{item.replace('_', '')}{outfit}_{view.replace('_', '')}"


def find_raw_photos(root: Path) -> dict[str, Path]:
    """Stored name -> raw photo, of all photos in GENDER/CATEGORY/id_*/ below `root`, but not below train or test.

    A note counts other files there. Raises UserError if two raw photos would get the same name, which means that there
    are two archives.
    """
    found: dict[str, Path] = {}
    skipped = []
    for name in sorted(file_names(root)):
        path = root / name
        gender, _, item = ("", "", "", *path.parts)[-4:-1]
        if gender not in GENDERS or not item.startswith("id_") or set(PHASES) & set(name.split("/")):
            continue
        stored = stored_name(path)
        if not is_photo(path):
            skipped.append(name)
        elif stored in found and not path.samefile(found[stored]):
            raise UserError(f"{found[stored]} and {path} are the same photo of two archives; choose one with --raw")
        else:
            found[stored] = path
    if skipped:
        print(f"note: {root}: {describe_skipped(root, skipped)}", file=sys.stderr)
    return found


def refuse_high_resolution(raw: list[Path]) -> None:
    """Raise UserError if the photos come from the high-resolution archive. At most 16 of them are looked at."""
    for path in raw[:: len(raw) // 16 + 1]:
        try:
            height, width = photo_size(path)
        except UserError:  # `prepare` reports a broken photo
            continue
        if _is_high_resolution(width, height):
            raise UserError(
                f"{path}: {width} x {height} pixels: this is the high-resolution archive (img_highres). PATN's lists "
                "and keypoints belong to the low-resolution one (img, 256 x 256): get that; or let --allow_highres "
                "scale these photos down, for training that cannot be compared with published numbers"
            )


def _is_high_resolution(width: int, height: int) -> bool:
    return height > RAW_SIZE[0] and abs(width / height / HIGHRES_ASPECT - 1) < 0.02


def scale_down(image: Image.Image, size: tuple[int, int] = FashionDataset.stored_size) -> Image.Image:
    """A high-resolution photo -> `size` (H, W), 256 x 176 or a multiple, with the joints where PATN's keypoints are.

    The low-resolution archive holds the same photos, scaled to a height of 256 (750 x 1101 becomes 174 wide) and
    centered in a square of a plain color. Here the outermost columns are repeated instead of that color.
    """
    height, width = size
    narrow = min(width, int(image.width * height / image.height))
    scaled = np.asarray(image.resize((narrow, height), Image.Resampling.LANCZOS))
    left = (width - narrow) // 2
    return Image.fromarray(np.pad(scaled, ((0, 0), (left, width - narrow - left), (0, 0)), mode="edge"))


def prepare(job: tuple[Path, Path], quality: int, size: tuple[int, int], highres: bool) -> str | None:
    """Write one photo of `size` (H, W), or return why it is unusable. `job`: the raw photo, and the path to write.

    `highres`: scale photos of the high-resolution archive down.
    """
    raw, stored = job
    try:
        image = decode_photo(raw)
    except UserError as error:
        return str(error)
    if (image.height, image.width) == size:  # already cropped: copied without another JPEG loss
        atomic_write(stored, lambda file: file.write(raw.read_bytes()))
        return None
    if highres and _is_high_resolution(*image.size):
        image = scale_down(image, size)
    elif size != FashionDataset.stored_size:
        return f"{raw}: {image.width} x {image.height} pixels; expected a photo of the high-resolution archive"
    elif problem := size_problem(image, RAW_SIZE):
        return f"{raw}: {problem}"
    else:
        image = image.crop(CROP)
    atomic_write(stored, lambda file: image.save(file, "JPEG", quality=quality))
    return None


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset_mode", choices=("fashion", "fashion512"), default="fashion",
                        help="176 x 256, or 352 x 512 from the high-resolution archive")  # fmt: skip
    parser.add_argument("--dataroot", type=Path, metavar="DIR", help="the data set; default: that of --dataset_mode")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="folder with the raw photos; default: --dataroot")
    parser.add_argument("--quality", type=number(int, 1, 100), default=75, metavar="Q",
                        help="JPEG quality; 75 (default), as in the published data, or 95, for less loss")  # fmt: skip
    parser.add_argument("--allow_highres", action="store_true",
                        help="scale high-resolution photos down; published numbers will not match")  # fmt: skip
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes")
    args = parser.parse_args()
    dataset = find_dataset(args.dataset_mode)
    args.dataroot = args.dataroot or Path(dataset.default_root)
    needs_highres = dataset is not FashionDataset

    raw_root = args.raw or args.dataroot
    for folder in (args.dataroot, raw_root):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    lists = {phase: read_list(args.dataroot / f"{phase}.lst") for phase in PHASES}
    if both := set(lists["train"]) & set(lists["test"]):
        raise UserError(f"{args.dataroot}: train.lst and test.lst share {len(both)} names, such as {min(both)}")
    found = find_raw_photos(raw_root)
    listed = [args.dataroot / phase / name for phase, names in lists.items() for name in names]
    todo = [stored for stored in listed if not stored.exists()]
    if todo and not found:
        archive = "img_highres" if needs_highres else "img"
        packed = ", ".join(sorted(path.name for path in raw_root.glob("*.zip")))
        raise UserError(
            f"{raw_root}: no raw photos such as WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg below it"
            f"{f'; unpack {packed} first' if packed else ''}. You need {archive}.zip of "
            "DeepFashion's in-shop clothes retrieval benchmark; its owners give the password on request"
        )
    jobs = [(found[stored.name], stored) for stored in todo if stored.name in found]
    if not args.allow_highres and not needs_highres:
        refuse_high_resolution([raw for raw, _ in jobs])

    print(f"{len(found)} raw photos found, {len(jobs)} to write with JPEG quality {args.quality}", flush=True)
    highres = args.allow_highres or needs_highres
    work = partial(prepare, quality=args.quality, size=dataset.stored_size, highres=highres)
    problems = list(map_in_processes(work, jobs, args.workers, "photos"))
    states = dict.fromkeys(listed, "already there") | dict.fromkeys(todo, "missing")
    states |= {stored: "unusable" if problem else "written" for (_, stored), problem in zip(jobs, problems)}

    print(" " * 5 + "".join(f"{title:>15}" for title in ("listed", *STATES)))
    for phase, names in lists.items():
        counts = Counter(states[args.dataroot / phase / name] for name in names)
        print(f"{phase:<5}{len(names):>15}" + "".join(f"{counts[state]:>15}" for state in STATES))
    print(f"raw photos found: {len(found)}, of which not listed: {len(found.keys() - {path.name for path in listed})}")
    if not_found := [stored.name for stored, state in states.items() if state == "missing"]:
        print(f"listed but missing:\n{summarize(not_found)}")
    if unusable := [problem for problem in problems if problem]:
        print(f"unusable raw photos:\n{summarize(unusable)}")
    if args.allow_highres:
        print("with --allow_highres, published numbers will not match")
    return 1 if not_found or unusable else 0


if __name__ == "__main__":
    run_main(main)
