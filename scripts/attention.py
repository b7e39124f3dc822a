"""Where the pixels come from: the attention of the Pose Transformer Module, as the paper's figure shows it.

python scripts/attention.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --points 88,60 88,120 --out panel.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.attention import attend, draw_panel
from inference.attention_options import AttentionOptions
from inference.cached_source import CachedSource
from inference.estimators import load_estimator
from inference.photo_transfer import check_outputs, keypoint_csvs, transfer_poses
from inference.pose_transfer import PoseTransfer
from inference.sources import open_poses, read_people_of, read_photo
from util.device import select_device
from util.errors import UserError, run_main
from util.image import save_image


def main() -> None:
    opt = AttentionOptions().parse()
    csvs = keypoint_csvs(opt)
    pose = open_poses(opt.pose[0], csvs)
    if pose.count != 1:
        raise UserError(f"--pose {opt.pose[0]}: there are {pose.count or 'many'} poses; give one, such as csv:NAME")
    check_outputs(opt, [pose], None)
    photo = read_photo(opt.source)
    people = read_people_of(opt.source, opt.source_pose, photo.size[::-1], csvs) if opt.source_pose else None

    device = select_device(opt.gpu_ids)
    transfer = PoseTransfer(opt, device)
    height, width = transfer.stored_size
    for x, y in opt.points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"--points {x:g},{y:g}: outside the image of {width} x {height} pixels")
    needs_estimator = people is None or pose.needs_estimator
    estimator = load_estimator(opt.estimator, opt.estimator_weights, device) if needs_estimator else None

    result = transfer_poses(opt, transfer, estimator, photo, people, [pose], None)
    source, target = CachedSource(transfer, result.source_image, result.source_keypoints), result.target_keypoints[0]
    attention = attend(source, target)
    block = -1 if opt.ttb is None else opt.ttb
    save_image(draw_panel(result.source_image, target, attention, opt.points, block, opt.head, opt.flow), opt.out)
    print(opt.out)


if __name__ == "__main__":
    run_main(main)
