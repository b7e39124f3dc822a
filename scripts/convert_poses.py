"""Convert poses from one program's files to another's: PATN's csv, OpenPose, DWPose, COCO, MediaPipe.

    python scripts/convert_poses.py openpose_output/ poses.csv --photos dataset/mine/train
    python scripts/convert_poses.py poses.csv coco.json --to coco
    python scripts/convert_poses.py poses.csv landmarks/ --to mediapipe --photos dataset/mine/train

IN is a file, or a folder of one file per photo; its format is detected by the content. OUT is a csv (patn) or what
--to says: one file for patn and coco, a folder of one JSON file per photo for the others (or a .json for one photo).
  patn             PATN's keypoints csv, name:keypoints_y:keypoints_x
  openpose         OpenPose's NAME_keypoints.json, 18 joints (--model_pose COCO) or 25; 18 are written. Read as well:
                   its old key pose_keypoints, and AlphaPose's file of all photos in the formats cmu and open
  openpose-body25  the same; 25 are written, the feet as missing
  dwpose           NAME.json of ControlNet's openpose editors, DWPose and ComfyUI, in pixels of a canvas or fractions
  coco             COCO's annotation file of 17 joints; it has no neck, which is derived from the shoulders when read.
                   Annotations with a box only are left out and counted
  mediapipe        NAME.json, a list of BlazePose's 33 landmarks {x, y, z, visibility} as fractions of the photo, or an
                   object that has it under pose_landmarks or landmarks, optionally with width and height; landmarks
                   below visibility 0.5 or outside the photo are missing; the neck is derived as for coco
These are read only:
  openpose-editor  NAME.json of width, height and keypoints, from the openpose-editor of Stable Diffusion's web UI
  detections       a JSON list of people with COCO's 17 joints: COCO results, AlphaPose's default (also Halpe's 26 and
                   136 joints), MMPose's predictions, YOLO's to_json()
  yolo             NAME.txt, YOLO's labels or predictions: class, box and 17 joints a line, as fractions of the photo

--photos gives the photos' full names (without it, NAME.jpg is assumed) and their sizes, which fractions need. Absolute
and Windows' paths in a file are reduced to the names below DIR, or without it to the file name.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inference.formats import read_people, write_poses
from inference.layouts import FORMATS, WRITTEN_FORMATS
from inference.people import CHOICES, describe_choice, describe_left_out, first_pose, rank_all
from inference.photos import Photos
from util.arguments import positive_int
from util.errors import UserError, run_main, summarize
from util.files import is_taken


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar="IN", help="file, or folder of JSON or text files")
    parser.add_argument("out", type=Path, metavar="OUT", help="file or folder")
    parser.add_argument("--from", dest="source_format", choices=FORMATS, help="default: detected by the content")
    parser.add_argument("--to", choices=WRITTEN_FORMATS, help="default: patn if OUT ends in .csv")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="folder of the photos")
    size = ("WIDTH", "HEIGHT")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=size, help="one size for all photos")
    which = "which of several people in a photo; prominent: extent times number of joints times confidence decides"
    parser.add_argument("--people", choices=CHOICES, default="prominent", help=which)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    args = parser.parse_args()
    args.to = args.to or ("patn" if args.out.suffix.lower() == ".csv" else None)
    if not args.to:
        parser.error(f"--to is needed, because {args.out} may be any of {', '.join(WRITTEN_FORMATS)}")
    if is_taken(args.out) and not args.overwrite:
        raise UserError(f"{args.out} is there already; --overwrite replaces what has the same name")
    photos = Photos(args.photos, args.size and tuple(args.size[::-1]))
    format_name, found, without_joints = read_people(args.source, args.source_format, photos)
    people = rank_all(found, args.people)
    write_poses(args.out, {name: first_pose(each) for name, each in people.items()}, args.to, photos)

    print(f"{len(people)} photos in {args.source} ({format_name})")
    if photos.has_assumed_names:
        print("their names are assumed to end in .jpg; --photos DIR gives the full names")
    if several := [f"{name}: {describe_choice(each)}" for name, each in people.items() if len(each) > 1]:
        how = {"prominent": "most prominent"}.get(args.people, args.people)
        print(f"{len(several)} of them with several people, of whom the {how} was taken:\n{summarize(several)}")
    if without_joints:
        print(describe_left_out(without_joints))
    if nobody := [name for name, each in people.items() if not each]:
        print(f"{len(nobody)} of them without a person, written with all joints missing:\n{summarize(nobody)}")
    print(f"written to {args.out} ({args.to})")


if __name__ == "__main__":
    run_main(main)
