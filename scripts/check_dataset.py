"""Checks whether a data set is complete and sound: reads every csv file, decodes every photo, changes nothing.

    python scripts/check_dataset.py --dataset_mode fashion                             # ./dataset/fashion
    python scripts/check_dataset.py --dataset_mode market --dataroot dataset/mine --own_data

All problems are collected, then listed by severity, which also determines the exit status:
  error (2: broken)    a csv file is missing; a csv or .lst file has bad rows; a folder has no photos; a pair names a
                       photo that is missing, unreadable, truncated or of a wrong size, or that has no keypoints;
                       results of test pairs cannot be named
  warning (1: usable)  counts differ from the published set (not with --own_data); photos that no pair uses are missing
                       or cannot be decoded; poses in pairs have no joints; rows occur twice; identities (DeepFashion:
                       outfits) are in both train and test; more than 1 % of the joints are outside their photo;
                       photos have an EXIF orientation, which older versions ignored; names are not UTF-8
  note (0: fit)        also found in the published sets: fewer joints are outside their photo; poses that no pair uses
                       have no joints; photos are in no list; files are not photos. And: photos have transparent pixels
A bug of this command ends with exit status 3.
"""

import sys
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names, find_dataset
from data.pairs import PHASES, read_columns, read_keypoints, read_pairs, result_names
from data.pose_pair_dataset import PosePairDataset
from util.arguments import positive_int
from util.errors import UserError, run_main, summarize
from util.files import explain_missing
from util.image import REMARKS, content_hint, describe_skipped, inspect_photo, list_photos, not_utf8, read_list
from util.worker_processes import available_cores, map_in_processes

SEVERITIES = ("note", "warning", "error")  # the index is the exit status
VERDICTS = ("fit to train", "usable, with warnings", "broken")  # by exit status
MAX_OUTSIDE = 0.01  # fraction of the joints; DeepFashion's test split has 19 in 46,982
COLUMNS = ("photos", "published", "pairs", "published", "keypoint rows", "photos in pairs", "identities in pairs")


class Report:
    """Collects problems as (exit status, text). `shown`: how many names are listed with each."""

    def __init__(self, shown: int) -> None:
        self.shown, self.problems = shown, []

    def add(self, severity: str, text: str, names: Iterable[str] = ()) -> None:
        names = list(names)
        listed = f"{text}:\n{summarize(names, self.shown)}" if names else text
        self.problems.append((SEVERITIES.index(severity), listed))

    def read(self, reader: Callable[[Any], Any], source: Any) -> Any:
        """Return `reader(source)`, or {} if it raises UserError, which is added."""
        try:
            return reader(source)
        except UserError as error:
            self.add("error", str(error))
            return {}

    def find_duplicates(self, rows: Iterable[str], path: Path) -> None:
        if twice := [row for row, times in Counter(rows).items() if times > 1]:
            self.add("warning", f"{path}: {len(twice)} rows come more than once", twice)


class Split:
    """The files of train or of test without the photos' content. A list that cannot be read counts as empty."""

    def __init__(self, dataset: type[PosePairDataset], root: Path, phase: str, report: Report) -> None:
        self.phase, self.folder = phase, root / phase
        pairs_csv = root / dataset.pairs_csv.format(phase=phase)
        keypoints_csv = root / dataset.keypoints_csv.format(phase=phase)
        self.pairs = report.read(read_pairs, pairs_csv)
        report.find_duplicates(map(",".join, self.pairs), pairs_csv)
        self.keypoints = report.read(read_keypoints, keypoints_csv)  # name -> (18,2)
        if self.keypoints:
            report.find_duplicates(read_columns(keypoints_csv, ("name",))["name"], keypoints_csv)
        list_file = root / f"{phase}.lst"
        listed = report.read(read_list, list_file) if list_file.exists() else ()
        self.used = {name for pair in self.pairs for name in pair}  # names in pairs
        self.named = self.used.union(self.keypoints, listed)  # names in any list
        photos, self.others = list_photos(self.folder)
        self.photos = set(photos)
        self.empty = {name for name, pose in self.keypoints.items() if np.isnan(pose).any(1).all()}  # without joints


def check_names(split: Split, published: tuple[int, ...], report: Report) -> None:
    """Compare photos with lists, pairs with keypoints, and numbers of photos and pairs with the published ones."""
    if missing := split.named - split.photos:
        needed = missing & split.used
        text = f"{split.folder}: {len(missing)} of {len(split.named)} listed photos are missing"
        severity = "error" if needed or not split.photos else "warning"
        text += f"; pairs need {len(needed)} of them" if needed else ""
        reasons = explain_missing(missing, split.photos, split.folder)
        for name in missing.intersection(split.others):
            reasons[name] = f" (is not a photo: {content_hint(split.folder / name) or 'unknown content'})"
        report.add(severity, text, [f"{name}{reasons.get(name, '')}" for name in sorted(missing)])
    elif not split.photos:
        report.add("error", f"{split.folder}: no photos")
    if split.pairs and split.keypoints and (unlisted := split.photos - split.named):
        report.add("note", f"{split.folder}: {len(unlisted)} photos are in no list", sorted(unlisted))
    if names := not_utf8(split.photos):
        report.add(
            "warning", f"{split.folder}: {len(names)} names are not UTF-8; no csv file can hold them", sorted(names)
        )
    if others := [name for name in split.others if name not in split.named]:
        report.add("note", f"{split.folder}: {describe_skipped(split.folder, others)}")
    if split.keypoints and (unknown := split.used - set(split.keypoints)):
        reasons = explain_missing(unknown, split.keypoints)
        names = [f"{name}{reasons.get(name, '')}" for name in sorted(unknown)]
        report.add("error", f"{split.phase}: {len(unknown)} photos in pairs have no keypoints", names)
    if split.phase == "test":
        report.read(partial(result_names, image_format="jpg"), split.pairs)
    for what, expected in zip(("photos", "pairs"), published):
        count = len(getattr(split, what))
        if count not in (0, expected):  # 0 has already been reported as an error
            report.add("warning", f"{split.phase}: {count} {what}, the published set has {expected}")


def check_poses(split: Split, size: tuple[int, int], report: Report) -> None:
    """Find poses without joints, and joints outside photos of `size` (H, W)."""
    if in_pairs := split.empty & split.used:
        text = f"{split.phase}: {len(in_pairs)} photos in pairs have no joint; the network cannot learn from them"
        report.add("warning", text, sorted(in_pairs))
    if unused := len(split.empty - split.used):
        report.add("note", f"{split.phase}: {unused} poses without any joint, which no pair uses")
    if not split.keypoints:
        return
    joints = np.stack(list(split.keypoints.values()))  # (photos,18,2)
    outside = ((joints < 0) | (joints >= np.array(size))).any(-1)  # (photos,18); False for a missing joint
    if outside.any():
        share = outside.sum() / (~np.isnan(joints).any(-1)).sum()
        names = [name for name, any_outside in zip(split.keypoints, outside.any(1)) if any_outside]
        text = f"{split.phase}: {outside.sum()} joints ({share:.2%}) lie outside {size[1]} x {size[0]} pixels"
        report.add("note" if share <= MAX_OUTSIDE else "warning", f"{text}, in {len(names)} photos", names)


def check_photos(split: Split, size: tuple[int, int], workers: int, report: Report) -> None:
    """Decode every photo, compare its size (H, W), and find what is unusual about it."""
    names = sorted(split.photos)
    paths = [split.folder / name for name in names]
    results = list(map_in_processes(partial(inspect_photo, size=size), paths, workers, split.phase))
    found = [(problem, name in split.used) for (problem, _), name in zip(results, names) if problem]
    for needed, severity, which in ((True, "error", "that pairs need"), (False, "warning", "that no pair needs")):
        if texts := [problem for problem, used in found if used == needed]:
            report.add(severity, f"{split.phase}: {len(texts)} photos {which} cannot be used", texts)
    severities = {"orientation": "warning", "transparency": "note"}
    for remark, text in REMARKS.items():
        if marked := [name for (_, remarks), name in zip(results, names) if remark in remarks]:
            text = f"{split.phase}: {len(marked)} photos {text}; the published photos have none"
            report.add(severities[remark], text, marked)


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset_mode", required=True, choices=dataset_names(), help="layout and names of the files")
    parser.add_argument("--dataroot", type=Path, metavar="DIR", help="default: the one of --dataset_mode")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="what to check")
    parser.add_argument("--own_data", action="store_true", help="not the published set: do not compare counts")
    parser.add_argument("--show", type=positive_int, default=5, metavar="N", help="names listed with each problem")
    parser.add_argument("--workers", type=positive_int, default=available_cores(), metavar="N", help="processes")
    args = parser.parse_args()

    dataset = find_dataset(args.dataset_mode)
    root = args.dataroot or Path(dataset.default_root)
    if not root.is_dir():
        raise UserError(f"--dataroot {root}: no such folder")
    report = Report(args.show)
    splits = {phase: Split(dataset, root, phase, report) for phase in dict.fromkeys(args.phases)}
    rows, identities = [], []
    for phase, split in splits.items():
        published = () if args.own_data else dataset.published.get(phase, ())
        check_names(split, published, report)
        check_poses(split, dataset.csv_size(), report)
        check_photos(split, dataset.stored_size, args.workers, report)
        counts = len(split.keypoints), len(split.used), len(set(map(dataset.outfit, split.used)))
        photos, pairs = published or ("-", "-")
        rows.append((len(split.photos), photos, len(split.pairs), pairs, *counts))
        identities.append(set(map(dataset.outfit, split.named)) - set(dataset.distractors))
    if len(splits) == 2 and (both := set.intersection(*identities)):
        report.add("warning", f"{len(both)} identities are in {' and '.join(splits)}", sorted(both))

    print(pd.DataFrame(rows, list(splits), COLUMNS).to_string())
    for status, text in sorted(report.problems, key=lambda problem: -problem[0]):  # the worst first
        print(f"{SEVERITIES[status]:<8} {text}")
    exit_status = max((status for status, _ in report.problems), default=0)
    print(f"{root}: {VERDICTS[exit_status]}")
    return exit_status


if __name__ == "__main__":
    try:
        run_main(main)
    except Exception:  # Python would exit with 1, which means "usable" here
        traceback.print_exc()
        sys.exit(3)
