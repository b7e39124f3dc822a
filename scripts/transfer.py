"""Your own photo, your own pose: generates the person of one photo in the poses of other photos, videos or files.

    python scripts/transfer.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --out out.png

--help says what a pose may be, and when the poses are a sequence.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.estimators import load_estimator
from inference.photo_transfer import check_outputs, keypoint_csvs, save_results, sequence_fps, transfer_poses
from inference.pose_transfer import PoseTransfer
from inference.sources import open_poses, read_people_of, read_photo
from inference.transfer_options import TransferOptions
from util.device import describe_device, select_device
from util.errors import run_main


def main() -> None:
    opt = TransferOptions().parse()
    start = time.perf_counter()
    csvs = keypoint_csvs(opt)
    sources = [open_poses(text, csvs, opt.every) for text in opt.pose]
    fps = sequence_fps(opt, sources)
    check_outputs(opt, sources, fps)
    photo = read_photo(opt.source)
    people = read_people_of(opt.source, opt.source_pose, photo.size[::-1], csvs) if opt.source_pose else None

    start_loading = time.perf_counter()
    device = select_device(opt.gpu_ids)
    transfer, estimator = PoseTransfer(opt, device), None
    networks = f"{opt.name}, {opt.which_epoch}"
    if people is None or any(source.needs_estimator for source in sources):
        estimator = load_estimator(opt.estimator, opt.estimator_weights, device)
        networks += f" and {opt.estimator}"
    print(f"{networks} on {describe_device(device)}")
    loading_seconds = time.perf_counter() - start_loading

    result = transfer_poses(opt, transfer, estimator, photo, people, sources, fps)
    save_results(opt, result, fps)
    seconds = (time.perf_counter() - start - loading_seconds) / len(result.images)
    print(f"{seconds:.2f} s per image, from file to file, and {loading_seconds:.1f} s to load the networks")


if __name__ == "__main__":
    run_main(main)
