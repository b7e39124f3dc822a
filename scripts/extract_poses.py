"""A keypoints csv for a folder of photos: the keypoints of the largest person in each photo.

    python scripts/extract_poses.py dataset/mine/train dataset/mine/market-annotation-train.csv --sheet poses.jpg
    python scripts/extract_poses.py photos poses.csv --estimator blazepose

The csv is PATN's: one row per photo, sorted by name, in pixels of the photo as train.py reads it (an EXIF rotation is
not applied), -1 = missing. A photo without a person gets a row of -1 and is listed. Each row is cached in OUT.csv.rows
as soon as it is found: after a stop, the same command resumes. Photos that cannot be decoded are listed when all others
are done; the csv is written once they are repaired or removed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.pairs import write_keypoints
from inference.estimators import ESTIMATORS
from inference.extraction import RowCache, choose_estimator, extract_rows, list_photos, round_down, skeleton_sheet
from util.arguments import positive_int
from util.device import describe_device
from util.errors import UserError, run_main
from util.image import image_path, save_image
from util.parallel import available_cores


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
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
    estimator = choose_estimator(args.estimator, args.estimator_weights, args.gpu_ids)
    cache_file = args.out.with_name(f"{args.out.name}.rows")
    cache = RowCache(cache_file, args.folder, names, estimator, args.overwrite)
    pending = [name for name in names if name not in cache.rows]
    if cache.rows:
        print(f"resuming: {len(cache.rows)} of {len(names)} photos are done")
    print(f"{len(pending)} photos with {args.estimator} on {describe_device(estimator.device)}", flush=True)

    workers = args.workers if estimator.device.type == "cpu" else 1
    extract_rows(args.folder, pending, estimator, workers, cache)
    rows = {name: cache.rows[name] for name in names}
    if args.sheet:
        save_image(skeleton_sheet(args.folder, rows), args.sheet)
        print(f"skeletons drawn in {args.sheet}")
    write_keypoints(args.out, {name: round_down(row.keypoints) for name, row in rows.items()})
    cache_file.unlink()

    if several := sum(row.people > 1 for row in rows.values()):
        print(f"photos with several people, of whom the largest was taken: {several}")
    if nobody := [name for name, row in rows.items() if not row.people]:
        print("\n  ".join([f"photos without a person, whose joints are all -1: {len(nobody)}", *nobody]))
    print(f"{len(rows)} rows written to {args.out}")


if __name__ == "__main__":
    run_main(main)
