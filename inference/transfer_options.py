"""Flags of scripts/transfer.py: those of test.py that choose and run a network, and its own."""

import argparse
from pathlib import Path

from inference.estimators import ESTIMATORS
from inference.sources import ROW_PREFIX
from inference.video import WRITERS
from options.base_options import add_batch_size
from options.test_options import TestOptions, add_which_epoch
from util.arguments import count, number, positive_int
from util.image import IMAGE_FORMATS, image_path

DESCRIPTION = """Your own photo, your own pose: finds the person in a photo and generates them in other poses.

    transfer.py --source me.jpg --pose dancer.jpg --name DPTN_fashion --dataset_mode fashion --out out.png
    transfer.py --source me.jpg --pose dance.mp4 --name DPTN_fashion --out me_dancing.gif
    transfer.py --source me.jpg --source_pose me.json --pose csv:NAME csv:OTHER --out images --sheet all.png

Each value of --pose is
  a photo (.jpg, .png, ...)    the pose of its most prominent person
  a folder of photos           the pose of each, sorted so that frame2 comes before frame10
  a video or animation         .mp4 .mov .avi .webm .mkv .gif .webp
  a keypoint file              .json, .csv or .txt of any kind that scripts/convert_poses.py reads, or a folder of them;
                               no fractions of a photo whose size the file does not state
  csv:NAME                     the row NAME of the data set's keypoints csv (--dataroot; test, then train), or of
                               --keypoints_csv

Results:
  images      one goes to --out (.png, .jpg), several go to the folder --out, as POSE.png
  a sequence  if --out ends in .gif, .webp or .mp4, if a pose is a video or an animation, or with --sequence (--out is
              then an empty or new folder for 00001.png and so on). The poses of a sequence are successive moments:
              within each value of --pose, single-frame errors are repaired, noise is smoothed, and the person gets
              one scale and a view that follows them. Rows and files are sorted like photos.

An existing image or animation is replaced; other files in an image folder are not touched.
"""


class TransferOptions(TestOptions):
    command = "scripts/transfer.py"
    description = DESCRIPTION

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        add_batch_size(self.add_photo_flags(parser))
        add = parser.add_argument_group("results").add_argument
        add("--out", metavar="PATH", help="an image, an animation or a folder, see above (required)")
        sheet = (
            "source, its skeleton, the pose's skeleton and the result, a row per pose; of a sequence 12 rows at most"
        )
        add("--sheet", type=image_path, metavar="FILE", help=sheet)

        add = parser.add_argument_group("sequences").add_argument
        add("--sequence", action="store_true", help="the poses are one sequence, although --out is a folder")
        rate = "images per second; default: those of the video, times N + 1 with --interpolate N, or 25"
        add("--fps", type=number(float, 0.01), metavar="F", help=rate)
        add("--every", type=positive_int, default=1, metavar="K", help="take every K-th pose")
        add("--interpolate", type=count, default=0, metavar="N", help="add N poses between each two")
        smooth = "repair leaps, fill gaps of up to 0.4 s, smooth over 0.1 s; off: the poses as they were found"
        add("--smooth", action=argparse.BooleanOptionalAction, default=True, help=smooth)

    def add_photo_flags(self, parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
        """What a command needs that generates a photo's person in other poses; returns the group 'data'."""
        run, data = self.add_network_flags(parser)
        add_which_epoch(run)
        csv_help = "where csv:NAME is looked up instead; target poses are in pixels of the stored size"
        data.add_argument("--keypoints_csv", type=Path, metavar="FILE", help=csv_help)

        add = parser.add_argument_group("photo and poses").add_argument
        add("--source", type=Path, metavar="PHOTO", help="the person to generate (required)")
        add("--source_pose", metavar="POSE", help="pose in --source: a keypoint file or csv:NAME; default: estimated")
        add("--pose", nargs="+", metavar="POSE", help="the target poses (required)")
        add(
            "--pose_frame", choices=("fit", "keep"),
            help="fit: the pose's person is framed as the data set frames people; keep: the keypoints are in pixels of "
            "the stored size already. Default: keep for rows of the data set's own csv files and of "
            "--keypoints_csv, and for photos of exactly the stored size, fit for everything else",
        )  # fmt: skip
        add("--estimator", choices=ESTIMATORS, default="keypointrcnn", help="what finds keypoints")
        add("--estimator_weights", metavar="FILE", help="file for keypointrcnn instead of the download")
        advice = "print advice as warnings and generate all the same; poses without a person are left out"
        add("--force", action="store_true", help=advice)
        return data

    def validate(self, opt: argparse.Namespace) -> None:
        super().validate(opt)
        if missing := [f"--{name}" for name in ("source", "pose", "out") if not getattr(opt, name)]:
            raise ValueError(f"{', '.join(missing)} required")
        known = {f".{suffix}" for suffix in IMAGE_FORMATS} | set(WRITERS)
        if not str(opt.out).endswith("/") and Path(opt.out).suffix not in {"", *known} and not Path(opt.out).is_dir():
            raise ValueError(f"--out {opt.out}: known suffixes are {', '.join(sorted(known))}; none means a folder")
        if opt.keypoints_csv and not any(str(text).startswith(ROW_PREFIX) for text in (*opt.pose, opt.source_pose)):
            raise ValueError("--keypoints_csv is where csv:NAME looks; for all of its rows give it as --pose FILE")
