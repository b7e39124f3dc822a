"""A keypoints csv for a folder of photos: where the joints of the largest person of each photo are.

    python scripts/extract_poses.py dataset/mine/train dataset/mine/market-annotation-train.csv --sheet poses.jpg
    python scripts/extract_poses.py photos poses.csv --estimator blazepose

The csv is PATN's: one row a photo, sorted by name, in pixels of the photo as train.py reads it (an EXIF rotation is
not applied), -1 = missing. A photo without a person gets a row of -1 and is listed. Each row is kept as soon as it is
found, in OUT.csv.rows: a run that was stopped goes on with the same command. Photos that cannot be decoded are listed
when all others are done, and the csv waits until they are mended or removed.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.pairs import write_keypoints
from inference.estimators import ESTIMATORS, load_estimator
from util.arguments import positive_int
from util.device import describe_device, select_device
from util.draw_pose import draw_skeleton
from util.errors import UserError, run_main, summarize
from util.files import atomic_write, sha256
from util.image import contact_sheet, decode_photo, image_path, is_photo, photo_names, save_image
from util.parallel import available_cores, map_in_processes

CHUNK = 4  # photos that a process takes at a time: one takes seconds on a CPU
SHEET = (8, 12)  # rows, columns; of more photos, as many are chosen at equal distances
CELL = (256, 176)  # height, width of one on the sheet


class Row(NamedTuple):
    """What was found in one photo."""

    people: int
    keypoints: np.ndarray  # (18,2) of the largest person, all NaN where there is nobody


load_once = lru_cache(maxsize=1)(load_estimator)  # one in each process; a forked one has its parent's


def find_row(name: str, folder: Path, estimator: tuple[str, str, torch.device]) -> Row | str:
    """The largest person of a photo, or why it cannot be decoded. `estimator` is what `load_estimator` takes."""
    try:
        photo = decode_photo(folder / name)
    except UserError as error:
        return str(error)
    if multiprocessing.parent_process():
        torch.set_num_threads(1)  # the other cores have processes of their own
    people = load_once(*estimator).people(photo)
    return Row(len(people), people[0].keypoints if people else np.full((18, 2), np.nan, np.float32))


def read_rows(path: Path, settings: Mapping[str, str]) -> dict[str, Row]:
    """Photo name -> row of what a stopped run left; a last line that was not written whole is left out.

    The first line is the settings, each other one a photo. UserError where the settings are others.
    """
    if not path.exists():
        return {}
    advice = "--overwrite begins again; another OUT.csv leaves it as it is"
    try:
        first, *others = (json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])
        rows = {name: Row(people, np.array(joints, np.float32).reshape(18, 2)) for name, people, joints in others}
        changed = [f"{key} {first[key]}, now {value}" for key, value in settings.items() if first[key] != value]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: these are not the rows of a stopped run ({error}); {advice}") from error
    if changed:
        raise UserError(f"{path}: the stopped run had other settings ({'; '.join(changed)}); {advice}")
    return rows


def line(content: Mapping[str, str] | list[Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def row_line(name: str, row: Row) -> bytes:
    return line([name, row.people, row.keypoints.tolist()])


def photos_below(folder: Path) -> list[str]:
    """Their names, sorted. UserError where there are none, or where a csv could not hold one."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = sorted(name for name in photo_names(folder) if is_photo(Path(name)))
    if not names:
        raise UserError(f"{folder}: no photos in it (.jpg, .jpeg or .png)")
    if bad := [name for name in names if set(name) & set(':"') or name != name.strip() or not name.isprintable()]:
        problems = summarize([ascii(name) for name in bad])
        raise UserError(f"{folder}: names that a keypoints csv cannot hold; rename these photos:\n{problems}")
    return names


def draw_sheet(folder: Path, rows: Mapping[str, Row]) -> Image.Image:
    """Skeletons over photos, of each or of as many as the sheet holds."""
    names = list(rows)
    places = SHEET[0] * SHEET[1]
    if len(names) > places:
        names = [names[round(number)] for number in np.linspace(0, len(names) - 1, places)]
    cells = [_cell(decode_photo(folder / name), rows[name].keypoints) for name in names]
    return contact_sheet([cells[start : start + SHEET[1]] for start in range(0, len(cells), SHEET[1])])


def _cell(photo: Image.Image, keypoints: np.ndarray) -> Image.Image:
    large = ImageOps.contain(photo, CELL[::-1])
    scaled = keypoints * (large.height / photo.height, large.width / photo.width)
    return ImageOps.pad(draw_skeleton(scaled, large.size[::-1], large), CELL[::-1], color="white")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photos; those in folders below it count too")
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="the keypoints csv to write")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="keypointrcnn", help="who finds the joints")
    parser.add_argument("--estimator_weights", help="of keypointrcnn: 'coco' (the default, downloaded once) or a file")
    parser.add_argument("--gpu_ids", "--gpu_id", metavar="ID", help="-1 = CPU; default: a GPU if there is one")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes (CPU)")
    parser.add_argument("--sheet", type=image_path, metavar="FILE", help="skeletons drawn over photos (.jpg, .png)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.csv, and rows of other settings")
    args = parser.parse_args()

    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} is there already; --overwrite replaces it")
    if args.sheet and args.folder.resolve() in args.sheet.resolve().parents:
        raise UserError(f"--sheet {args.sheet}: the next run would take it for a photo; write it outside {args.folder}")
    names = photos_below(args.folder)
    kind = ESTIMATORS[args.estimator]
    device = select_device(args.gpu_ids) if kind.uses_gpu else torch.device("cpu")
    weights = args.estimator_weights or kind.default_weights
    load_once(args.estimator, weights, device)  # here, so that what is missing is said once and at once
    settings = {
        "folder": str(args.folder.resolve()),
        "estimator": args.estimator,
        "weights": sha256(weights) if Path(weights).is_file() else weights,
    }
    kept = args.out.with_name(f"{args.out.name}.rows")
    try:
        rows = read_rows(kept, settings)
    except UserError:
        if not args.overwrite:
            raise
        rows = {}
    rows = {name: rows[name] for name in names if name in rows}
    todo = [name for name in names if name not in rows]
    if rows:
        print(f"going on: {len(rows)} of {len(names)} photos were done before")
    print(f"{len(todo)} photos with {args.estimator} on {describe_device(device)}", flush=True)

    start = b"".join((line(settings), *(row_line(name, row) for name, row in rows.items())))
    atomic_write(kept, lambda file: file.write(start))
    problems = []
    find = partial(find_row, folder=args.folder, estimator=(args.estimator, weights, device))
    workers = args.workers if device.type == "cpu" else 1
    with kept.open("ab") as file:
        for name, found in zip(todo, map_in_processes(find, todo, workers, "photos", CHUNK)):
            if isinstance(found, str):
                problems.append(found)
                continue
            rows[name] = found
            file.write(row_line(name, found))
            file.flush()
    if problems:
        raise UserError(
            f"{len(problems)} photos cannot be used; mend or remove them and give the same command again, "
            f"which keeps what was found in the others:\n{summarize(problems)}"
        )

    rows = {name: rows[name] for name in names}
    if args.sheet:
        save_image(draw_sheet(args.folder, rows), args.sheet)
        print(f"skeletons drawn in {args.sheet}")
    write_keypoints(args.out, {name: whole_hundredths(row.keypoints) for name, row in rows.items()})
    kept.unlink()
    if several := sum(row.people > 1 for row in rows.values()):
        print(f"photos with several people, of whom the largest was taken: {several}")
    if nobody := [name for name, row in rows.items() if not row.people]:
        print("\n  ".join([f"photos without a person, whose joints are all -1: {len(nobody)}", *nobody]))
    print(f"{len(rows)} rows written to {args.out}")


def whole_hundredths(keypoints: np.ndarray) -> np.ndarray:
    """Short numbers for the csv; rounded down, or a joint at the edge could leave the photo."""
    return np.floor(keypoints.astype(np.float64) * 100) / 100


if __name__ == "__main__":
    run_main(main)
