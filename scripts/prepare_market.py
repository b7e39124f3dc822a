"""Turns an unpacked Market-1501 archive into train/ and test/ of the data set.

    python scripts/prepare_market.py                                     # archive unpacked in ./dataset/market
    python scripts/prepare_market.py --raw /disk/Market-1501-v15.09.15   # archive unpacked elsewhere

bounding_box_train becomes train, bounding_box_test becomes test, by --mode:
  link    a symbolic link to the folder, which stays where it is (default)
  copy    the photos are copied; a copy that was stopped can be resumed
  rename  the folder is moved

Nothing is deleted or overwritten; a train or test that exists already is not changed, except that copy completes it.
Then the photos are counted (12,936 and 19,732) and each is decoded. Exit status: 0 no problems, 1 photos are missing,
too many, broken or of a wrong size, 2 the command could not start.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.market_dataset import MarketDataset
from util.arguments import positive_int
from util.errors import UserError, run_main, summarize
from util.files import atomic_write, walk
from util.image import inspect_photo, list_photos, photo_names
from util.worker_processes import available_cores, map_in_processes

FOLDERS = {"train": "bounding_box_train", "test": "bounding_box_test"}
MODES = ("link", "copy", "rename")
SOURCES = {
    MarketDataset.keypoints_csv: "published by PATN, Zhu et al., CVPR 2019",
    MarketDataset.pairs_csv: "published by PATN too; make_pairs.py can make that of train, but not the 12,000 of test",
}


def find_raw_folder(root: Path, name: str) -> Path:
    """The folder `name` at any depth below `root`. Raises UserError if there is none, or more than one."""
    folders = {os.path.realpath(entry.path): Path(entry.path) for entry in walk(root) if entry.name == name}
    found = sorted(path for path in folders.values() if path.is_dir())
    if len(found) != 1:
        what = f"{len(found)} folders {name} ({found[0]}, {found[1]})" if found else f"no folder {name}"
        raise UserError(f"{root}: {what} below it; give the unpacked archive (Market-1501-v15.09.15) with --raw")
    return found[0]


def store_folder(raw: Path, stored: Path, mode: str) -> None:
    """Make `stored` a link to `raw`, or copy the photos that it lacks, or move the folder. UserError if that fails."""
    if mode == "rename" and raw.is_symlink():
        raise UserError(f"{raw}: a link, which --mode rename would break; use --mode link or --mode copy")
    try:
        if mode == "link":  # relative, so that the link stays valid if a folder that holds both is moved
            stored.symlink_to(os.path.relpath(raw.resolve(), stored.parent.resolve()), target_is_directory=True)
        elif mode == "rename":
            raw.rename(stored)
    except OSError as error:  # no permission (links on Windows), a disk without links, a move to another disk
        others = " or ".join(f"--mode {other}" for other in MODES if other != mode)
        raise UserError(f"{raw}: --mode {mode} failed ({error}); use {others}") from error
    if mode == "copy":
        for name in tqdm(photo_names(raw), desc=raw.name, unit="photo", disable=None):
            if not (stored / name).exists():
                atomic_write(stored / name, lambda file, name=name: file.write((raw / name).read_bytes()))


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataroot", type=Path, default=MarketDataset.default_root, metavar="DIR", help="the data set")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="folder with the archive; default: --dataroot")
    parser.add_argument("--mode", choices=MODES, default="link", help="how the photos get into the data set")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes")
    args = parser.parse_args()

    raw_root = args.raw or args.dataroot
    if not raw_root.is_dir():
        raise UserError(f"{raw_root}: no such folder")
    args.dataroot.mkdir(parents=True, exist_ok=True)
    counts = {phase: photos for phase, (photos, _) in MarketDataset.published.items()}
    for phase, name in FOLDERS.items():
        stored = args.dataroot / phase
        if stored.is_symlink() and not stored.exists():
            raise UserError(f"{stored}: a link to {os.readlink(stored)}, which does not exist; remove the link")
        if args.mode != "copy" and stored.is_dir() and not any(stored.iterdir()):
            raise UserError(f"{stored}: an empty folder; remove it, or use --mode copy")
        # a link or a moved folder is complete, a copy may lack photos
        if stored.exists() and (
            args.mode != "copy" or stored.is_symlink() or len(list_photos(stored).photos) >= counts[phase]
        ):
            print(f"{stored} exists already")
        else:
            raw = find_raw_folder(raw_root, name)
            store_folder(raw, stored, args.mode)
            print(f"{raw} -> {stored} ({args.mode})")
    problems = []
    for phase, count in counts.items():
        photos = [args.dataroot / phase / name for name in photo_names(args.dataroot / phase)]
        if len(photos) != count:
            problems.append(f"{args.dataroot / phase}: {len(photos)} photos, Market-1501 has {count}")
        check = partial(inspect_photo, size=MarketDataset.stored_size)
        problems += [problem for problem, _ in map_in_processes(check, photos, args.workers, phase) if problem]
    if problems:
        print(f"problems:\n{summarize(problems)}")
        return 1
    height, width = MarketDataset.stored_size
    print(f"photos: complete, all of {width} x {height} pixels (width x height)")
    for phase in FOLDERS:
        for pattern, source in SOURCES.items():
            path = args.dataroot / pattern.format(phase=phase)
            if not path.exists():
                print(f"still needed: {path} ({source})")
    return 0


if __name__ == "__main__":
    run_main(main)
