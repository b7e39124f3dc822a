"""Flags of scripts/transfer.py: those of test.py that choose and run a network, and its own."""

import argparse
from pathlib import Path

from inference.estimators import ESTIMATORS
from inference.video import WRITERS
from options.test_options import TestOptions, add_which_epoch
from util.arguments import count, number, positive_int
from util.image import IMAGE_FORMATS, image_path

DESCRIPTION = """Your own photo, your own pose: finds the person in a photo, and draws them in other poses.

    transfer.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --dataset_mode fashion --out out.png
    transfer.py --source me.jpg --pose dance.mp4 --name DPTN_fashion --out me_dancing.gif
    transfer.py --source me.jpg --source_pose me.json --pose csv:NAME csv:OTHER --out pictures --sheet all.png

Each value of --pose is
  a photo (.jpg, .png)         the pose of its largest person
  a folder of photos           those of each, in the order of the numbers in their names
  a video or animation         .mp4 .mov .avi .webm .mkv .gif .webp
  a keypoint file              .json or .csv of any kind that scripts/convert_poses.py reads, or a folder of .json
  csv:NAME                     the row NAME of the data set's keypoints csv (--dataroot; test, then train), or of
                               --keypoints_csv

What comes of it:
  pictures    one goes to --out (.png, .jpg), several to the folder --out, as POSE.png
  a sequence  if --out ends in .gif, .webp or .mp4, if a pose is a video or an animation, or with --sequence (--out is
              then an empty or new folder for 00001.png and so on). The poses of a sequence are successive moments:
              faults are mended and noise is smoothed within each value of --pose, which gets one scale and one view
              that follows the person. csv rows and files come in the order of the numbers in their names.

A picture or an animation that is there already is replaced; nothing else in a folder of pictures is touched.
"""


class TransferOptions(TestOptions):
    command = "scripts/transfer.py"
    description = DESCRIPTION

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        run, data = self.add_network_flags(parser)
        add_which_epoch(run)
        data.add_argument("--keypoints_csv", type=Path, metavar="FILE", help="where csv:NAME looks, instead")

        photo = parser.add_argument_group("photo and poses")
        photo.add_argument("--source", type=Path, metavar="PHOTO", help="the person to draw (needed)")
        photo.add_argument(
            "--source_pose", metavar="POSE", help="joints of --source: a keypoint file or csv:NAME; default: estimated"
        )
        photo.add_argument("--pose", nargs="+", metavar="POSE", help="the poses to draw it in (needed)")
        photo.add_argument(
            "--pose_frame", choices=("fit", "keep"),
            help="fit: the pose's person is framed as the data set frames people; keep: the joints are in pixels of "
            "the stored picture already. Default: keep for rows of the data set's own csv files and of "
            "--keypoints_csv, and for photos of exactly the stored size, fit for everything else",
        )  # fmt: skip
        photo.add_argument("--estimator", choices=ESTIMATORS, default="keypointrcnn", help="who finds joints in photos")
        photo.add_argument("--estimator_weights", metavar="FILE", help="of keypointrcnn, instead of a download")
        photo.add_argument(
            "--force", action="store_true",
            help="draw in spite of advice, which is printed all the same; poses without a person are left out",
        )  # fmt: skip

        out = parser.add_argument_group("results")
        out.add_argument("--out", metavar="PATH", help="a picture, an animation or a folder, see above (needed)")
        out.add_argument(
            "--sheet", type=image_path, metavar="FILE",
            help="a row a pose: source, its skeleton, the pose's skeleton, result; of a sequence a dozen",
        )  # fmt: skip

        sequence = parser.add_argument_group("sequences")
        sequence.add_argument("--sequence", action="store_true", help="the poses are one, though --out is a folder")
        sequence.add_argument(
            "--fps", type=number(float, 0.01), metavar="F",
            help="pictures a second; default: a video's own, N + 1 times as many with --interpolate N; else 25",
        )  # fmt: skip
        sequence.add_argument("--every", type=positive_int, default=1, metavar="K", help="take each K-th pose")
        sequence.add_argument("--interpolate", type=count, default=0, metavar="N", help="put N poses between each two")
        sequence.add_argument(
            "--smooth", action=argparse.BooleanOptionalAction, default=True,
            help="mend leaps, fill gaps of up to 0.4 s, smooth over 0.1 s; off: the poses as they were found",
        )  # fmt: skip

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if missing := [f"--{name}" for name in ("source", "pose", "out") if not getattr(opt, name)]:
            raise ValueError(f"{', '.join(missing)} needed")
        known = {f".{ending}" for ending in IMAGE_FORMATS} | set(WRITERS)
        if not opt.out.endswith("/") and Path(opt.out).suffix not in {"", *known} and not Path(opt.out).is_dir():
            raise ValueError(f"--out {opt.out}: endings known are {', '.join(sorted(known))}; none means a folder")
        if opt.keypoints_csv and not any(str(text).startswith("csv:") for text in (*opt.pose, opt.source_pose)):
            raise ValueError("--keypoints_csv is where csv:NAME looks; for all of its rows give it as --pose FILE")
