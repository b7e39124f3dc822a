"""Your own photo, your own pose: generates the person of one photo in the poses of other photos, videos or files.

    python scripts/transfer.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --out out.png

--help says what a pose may be, and when the poses are a sequence.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference import photo_transfer
from inference.sources import open_poses
from inference.transfer_options import TransferOptions
from util.errors import run_main
from util.image import save_image


def main() -> None:
    opt = TransferOptions().parse()
    start = time.perf_counter()
    csv_files = photo_transfer.keypoint_csv_files(opt)
    sources = [open_poses(text, csv_files, opt.every) for text in opt.pose]
    fps = photo_transfer.sequence_fps(opt, sources)
    photo_transfer.check_outputs(opt, sources, fps)
    photo = photo_transfer.read_source(opt)

    start_loading = time.perf_counter()
    needs_estimator = photo.people is None or any(source.needs_estimator for source in sources)
    networks = photo_transfer.load_networks(opt, needs_estimator)
    loading_seconds = time.perf_counter() - start_loading

    result = photo_transfer.transfer_poses(opt, networks, photo, sources, fps)
    if fps is None:
        photo_transfer.save_images(result, opt.out)
    else:
        photo_transfer.save_sequence(result, opt.out, fps)
    if opt.sheet:
        max_rows = len(result.images) if fps is None else photo_transfer.SEQUENCE_SHEET_ROWS
        save_image(photo_transfer.comparison_sheet(result, max_rows), opt.sheet)
    seconds = (time.perf_counter() - start - loading_seconds) / len(result.images)
    print(f"{seconds:.2f} s per image, from file to file, and {loading_seconds:.1f} s to load the networks")


if __name__ == "__main__":
    run_main(main)
