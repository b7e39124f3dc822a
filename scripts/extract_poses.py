"""A keypoints csv for a folder of photos: the keypoints of the largest person in each photo.

    python scripts/extract_poses.py dataset/mine/train dataset/mine/market-annotation-train.csv --sheet poses.jpg
    python scripts/extract_poses.py photos poses.csv --estimator blazepose

The csv is PATN's: one row per photo, sorted by name, in pixels of the photo as train.py reads it (turned upright by its
EXIF orientation), -1 = missing. A photo without a person gets a row of -1 and is listed. Each row is cached in
OUT.csv.rows as soon as it is found: after a stop, the same command resumes. Photos that cannot be decoded are listed
when all others are done; the csv is written once they are repaired or removed.
"""

import json
import multiprocessing
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.keypoints import NUM_JOINTS
from data.pairs import write_keypoints
from inference.estimators import CPU, ESTIMATORS, load_estimator
from util.arguments import positive_int
from util.device import describe_device, select_device
from util.draw_pose import draw_skeleton
from util.errors import UserError, run_main, summarize
from util.files import atomic_write, sha256
from util.image import contact_sheet, decode_photo, image_path, photo_names, save_image
from util.parallel import available_cores, map_in_processes

CHUNK = 4  # photos that a process takes at a time, because one takes seconds on a CPU
SHEET = (8, 12)  # rows, columns of `skeleton_sheet`; of more photos, as many are chosen at equal distances
CELL = (256, 176)  # height, width of one photo on the sheet

load_once = lru_cache(maxsize=1)(load_estimator)  # one per process; a forked process inherits its parent's


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photos, also in folders below it")
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="the keypoints csv to write")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="keypointrcnn", help="what finds the joints")
    parser.add_argument("--estimator_weights", help="of keypointrcnn: 'coco' (the default, downloaded once) or a file")
    parser.add_argument("--gpu_ids", "--gpu_id", metavar="ID", help="-1 = CPU; default: a GPU if there is one")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes (CPU)")
    parser.add_argument("--sheet", type=image_path, metavar="FILE", help="skeletons drawn over photos (.jpg, .png)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.csv, and cached rows of other settings")
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} is there already; --overwrite replaces it")
    if args.sheet and args.folder.resolve() in args.sheet.resolve().parents:
        raise UserError(f"--sheet {args.sheet}: the next run would take it for a photo; write it outside {args.folder}")
    return args


def main() -> None:
    args = parse_arguments()
    names = list_photos(args.folder)
    kind = ESTIMATORS[args.estimator]
    weights = args.estimator_weights or kind.default_weights
    device = select_device(args.gpu_ids) if kind.uses_gpu else CPU
    load_once(args.estimator, weights, device)  # so that missing weights or packages are one early error
    content = sha256(weights) if Path(weights).is_file() else weights
    settings = {"folder": str(args.folder.resolve()), "estimator": args.estimator, "weights": content}
    cache = RowCache(args.out.with_name(f"{args.out.name}.rows"), settings, names, args.overwrite)
    pending = [name for name in names if name not in cache.rows]
    if cache.rows:
        print(f"resuming: {len(cache.rows)} of {len(names)} photos are done")
    print(f"{len(pending)} photos with {args.estimator} on {describe_device(device)}", flush=True)

    find = partial(find_row, folder=args.folder, estimator=(args.estimator, weights, device))
    extract_rows(find, pending, args.workers if device.type == "cpu" else 1, cache)
    rows = {name: cache.rows[name] for name in names}
    if args.sheet:
        save_image(skeleton_sheet(args.folder, rows), args.sheet)
        print(f"skeletons drawn in {args.sheet}")
    write_keypoints(args.out, {name: round_down(row.keypoints) for name, row in rows.items()})
    cache.path.unlink()

    if several := sum(row.people > 1 for row in rows.values()):
        print(f"photos with several people, of whom the largest was taken: {several}")
    if nobody := [name for name, row in rows.items() if not row.people]:
        print("\n  ".join([f"photos without a person, whose joints are all -1: {len(nobody)}", *nobody]))
    print(f"{len(rows)} rows written to {args.out}")


class ExtractedRow(NamedTuple):
    """What was found in one photo."""

    people: int
    keypoints: np.ndarray  # (18,2) of (y, x) of the largest person, all NaN if there is nobody


def list_photos(folder: Path) -> list[str]:
    """Names of the photos in a folder and below, sorted. UserError if there are none, or if a csv cannot hold one."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = photo_names(folder)
    if not names:
        raise UserError(f"{folder}: no photos in it")
    if bad := [name for name in names if set(name) & set(':"') or name != name.strip() or not name.isprintable()]:
        problems = summarize([ascii(name) for name in bad])
        raise UserError(f"{folder}: names that a keypoints csv cannot hold; rename these photos:\n{problems}")
    return names


class RowCache:
    """The rows found so far, in a file of JSON lines that a stopped run leaves.

    The first line holds the settings that the rows depend on, each other line one photo: [name, people, keypoints].
    """

    def __init__(self, path: Path, settings: Mapping[str, str], names: Sequence[str], overwrite: bool) -> None:
        """Keep the rows that a stopped run found in the photos `names`.

        Raises UserError if rows are damaged or were made with other settings; with `overwrite` they are discarded.
        """
        self.path, rows = path, {}
        try:
            rows = self._read(settings) if path.exists() else {}
        except UserError:
            if not overwrite:
                raise
        self.rows = {name: rows[name] for name in names if name in rows}
        lines = [_json_line(settings), *(_json_line([name, *row]) for name, row in self.rows.items())]
        atomic_write(path, lambda file: file.writelines(lines))

    def _read(self, settings: Mapping[str, str]) -> dict[str, ExtractedRow]:
        """The rows in the file, without a last line that a killed run did not finish."""
        advice = "--overwrite discards it; another OUT.csv leaves it unchanged"
        try:
            first, *lines = (json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1])
            changed = [f"{key} {first[key]}, now {new}" for key, new in settings.items() if first[key] != new]
            rows = {
                name: ExtractedRow(people, np.array(keypoints, np.float32).reshape(NUM_JOINTS, 2))
                for name, people, keypoints in lines
            }
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.path}: not the rows of a stopped run ({error}); {advice}") from error
        if changed:
            raise UserError(f"{self.path}: the stopped run had other settings ({'; '.join(changed)}); {advice}")
        return rows

    def add(self, name: str, row: ExtractedRow) -> None:
        """The row is in the file when this returns."""
        self.rows[name] = row
        with self.path.open("ab") as file:
            file.write(_json_line([name, *row]))


def _json_line(content: object) -> bytes:
    return json.dumps(content, default=np.ndarray.tolist).encode() + b"\n"


def extract_rows(find: Callable[[str], ExtractedRow | str], names: list[str], workers: int, cache: RowCache) -> None:
    """Search the photos and add their rows to `cache`. UserError at the end for photos that cannot be decoded."""
    problems = []
    for name, found in zip(names, map_in_processes(find, names, workers, "photos", CHUNK)):
        if isinstance(found, str):
            problems.append(found)
        else:
            cache.add(name, found)
    if problems:
        advice = "repair or remove them and run the same command again, which keeps what was found in the others"
        raise UserError(f"{len(problems)} photos cannot be used; {advice}:\n{summarize(problems)}")


def find_row(name: str, folder: Path, estimator: tuple[str, str, torch.device]) -> ExtractedRow | str:
    """The largest person of a photo, or why the photo cannot be decoded. `estimator` is what `load_once` takes."""
    try:
        photo = decode_photo(folder / name)
    except UserError as error:
        return str(error)
    if multiprocessing.parent_process():
        torch.set_num_threads(1)  # each of the other cores has a process of its own
    people = load_once(*estimator).find_people(photo)
    return ExtractedRow(len(people), people[0] if people else np.full((NUM_JOINTS, 2), np.nan, np.float32))


def round_down(keypoints: np.ndarray) -> np.ndarray:
    """Hundredths of a pixel, for short numbers in the csv; rounded down, because rounding up could leave the photo."""
    return np.floor(keypoints.astype(np.float64) * 100) / 100


def skeleton_sheet(folder: Path, rows: Mapping[str, ExtractedRow]) -> Image.Image:
    """Skeletons over photos, of all rows or of as many as the sheet holds."""
    names, places = list(rows), SHEET[0] * SHEET[1]
    if len(names) > places:
        names = [names[round(number)] for number in np.linspace(0, len(names) - 1, places)]
    cells = []
    for name in names:
        photo = decode_photo(folder / name)
        image = ImageOps.contain(photo, CELL[::-1])
        scaled = rows[name].keypoints * (image.height / photo.height, image.width / photo.width)
        cells.append(ImageOps.pad(draw_skeleton(scaled, image.size[::-1], image), CELL[::-1], color="white"))
    return contact_sheet([cells[start : start + SHEET[1]] for start in range(0, len(cells), SHEET[1])])


if __name__ == "__main__":
    run_main(main)
