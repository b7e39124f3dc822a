"""A keypoints csv for a folder of photos: the keypoints of the most prominent person in each photo.

    python scripts/extract_poses.py dataset/mine/train dataset/mine/market-annotation-train.csv --sheet poses.jpg
    python scripts/extract_poses.py photos poses.csv --estimator blazepose

The csv is PATN's: one row per photo, sorted by name, in pixels of the photo as train.py reads it (turned upright by its
EXIF orientation), -1 = missing. A photo without a person gets a row of -1 and is listed. Of several people, extent
times number of joints times confidence decides, and the photos are listed with who was taken. Rows are cached in
OUT.csv.rows during the search: after a stop, the same command resumes. Photos that cannot be decoded are named
(the first ten) when all others are done; the csv is written once they are repaired or removed.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.pairs import write_keypoints
from inference.estimators import CPU, ESTIMATORS
from inference.extraction import RowCache, extract_rows, find_photos, find_row, load_once, round_down, skeleton_sheet
from util.arguments import positive_int
from util.device import describe_device, select_device
from util.errors import UserError, run_main
from util.files import sha256
from util.image import DECODING, image_path, save_image
from util.worker_processes import available_cores


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
    names = find_photos(args.folder)
    kind = ESTIMATORS[args.estimator]
    weights = args.estimator_weights or kind.default_weights
    device = select_device(args.gpu_ids) if kind.uses_gpu else CPU
    load_once(args.estimator, weights, device)  # so that missing weights or packages are one early error
    content = sha256(weights) if Path(weights).is_file() else weights
    settings = {
        "folder": str(args.folder.resolve()), "estimator": args.estimator, "weights": content, "decoding": DECODING,
    }  # fmt: skip
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

    if several := [f"{name}: {row.choice}" for name, row in rows.items() if row.choice]:
        what = f"photos with several people, of whom the most prominent was taken: {len(several)}"
        print("\n  ".join([what, *several]))
    if nobody := [name for name, row in rows.items() if not row.num_people]:
        print("\n  ".join([f"photos without a person, whose joints are all -1: {len(nobody)}", *nobody]))
    print(f"{len(rows)} rows written to {args.out}")


if __name__ == "__main__":
    run_main(main)
