"""A rendered person walking on the spot: numbered photos in the layout of a data set, with their exact keypoints.

    python -m data.synthetic.walk --out dataset/walk
    python -m data.synthetic.walk --dataset_mode fashion --frames 40 --yaw 0 --out dataset/walk_front

DIR/test holds walk_0001.jpg, walk_0002.jpg and so on. DIR also has the keypoints csv of all frames and a pairs csv
from the first frame to each frame, so test.py can read it. The same flags give the same files.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

from data import find_dataset
from data.pairs import Pair, write_keypoints, write_pairs
from data.synthetic.body import Posture
from data.synthetic.people import LOOKS, RenderedPhoto, random_scene, render_photo
from util.arguments import count, number, positive_int
from util.errors import UserError, run_main
from util.files import is_taken

STRIDE = 25.0  # degrees by which a thigh swings forwards and backwards


def walking_posture(phase: float, yaw: float) -> Posture:
    """The posture at `phase` (0..1) of a cycle of two steps; `yaw` in degrees, 90 walks to the right."""
    angle = 2 * np.pi * (phase + np.array([0, 0.5]))  # right, left
    swing = STRIDE * np.sin(angle)
    knee = 6 + 1.6 * STRIDE * np.clip(np.cos(angle), 0, 1)  # bent while the leg comes forwards
    elbow = 22 + 0.4 * swing[::-1]
    return Posture(
        yaw=yaw, lean=3, twist=-0.2 * float(swing[0]), hip=tuple(swing + 3), knee=tuple(knee),
        arm_forward=tuple(-0.9 * swing), elbow=tuple(elbow),
    )  # fmt: skip


def render_walk(dataset_mode: str, frames: int, cycles: float, yaw: float, seed: int) -> list[RenderedPhoto]:
    """`frames` photos of one person who walks for `cycles` cycles, in the look of data set `dataset_mode`."""
    person, background = random_scene(np.random.default_rng([seed, sorted(LOOKS).index(dataset_mode)]), dataset_mode)
    size, photos = find_dataset(dataset_mode).stored_size, []
    for frame in range(frames):
        framing = np.random.default_rng(seed)  # gives all frames the same scale and position
        posture = walking_posture(cycles * frame / frames, yaw)
        photos.append(render_photo(f"walk_{frame + 1:04d}.jpg", person, posture, background, size, framing))
    return photos


def main() -> None:
    parser = ArgumentParser("python -m data.synthetic.walk", description=__doc__, allow_abbrev=False,
                            formatter_class=RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--dataset_mode", choices=sorted(LOOKS), default="market", help="size, layout and look")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data root to create")
    parser.add_argument("--frames", type=positive_int, default=24, metavar="N", help="number of photos")
    parser.add_argument("--cycles", type=number(float, 0), default=1.0, metavar="X", help="cycles of two steps each")
    parser.add_argument("--yaw", type=number(float), default=60.0, metavar="DEGREES", help="0 front, 90 side, 180 back")
    parser.add_argument("--seed", type=count, default=0, help="determines the person")
    args = parser.parse_args()
    if is_taken(args.out):
        raise UserError(f"{args.out}: exists already; remove it, or give another --out")
    dataset = find_dataset(args.dataset_mode)
    photos = render_walk(args.dataset_mode, args.frames, args.cycles, args.yaw, args.seed)
    for photo in photos:
        photo.save(args.out / "test")
    keypoints = {photo.name: photo.keypoints for photo in photos}
    write_keypoints(args.out / dataset.keypoints_csv.format(phase="test"), keypoints)
    pairs = [Pair(photos[0].name, name) for name in keypoints]
    write_pairs(args.out / dataset.pairs_csv.format(phase="test"), pairs)
    print(f"{len(photos)} photos of a walk in {args.out}")


if __name__ == "__main__":
    run_main(main)
