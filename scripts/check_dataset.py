"""Is a data set complete and sound? Reads every csv file and decodes every photo; changes nothing.

    python scripts/check_dataset.py --dataset_mode fashion                             # ./dataset/fashion
    python scripts/check_dataset.py --dataset_mode market --dataroot dataset/mine --own_data

All problems are collected, then listed by severity, which also determines the exit status:
  error (2: broken)    a csv file is missing or has bad rows; a pair names a photo that is missing, unreadable,
                       truncated or of a wrong size, or that has no keypoints
  warning (1: usable)  counts differ from the published set (not with --own_data); photos that no pair uses are missing
                       or cannot be decoded; poses in pairs have no joints; rows occur twice; identities (DeepFashion:
                       outfits) are in both train and test; more than 1 % of the joints are outside their photo
  note (0: fit)        also found in the published sets: fewer joints are outside their photo; poses that no pair uses
                       have no joints; photos are in no list
"""

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import dataset_names, find_dataset
from data.pairs import PHASES, Pair, read_columns, read_keypoints, read_pairs
from data.pose_pair_dataset import PosePairDataset
from util.arguments import positive_int
from util.errors import UserError, run_main, summarize
from util.files import file_names
from util.image import is_photo, photo_problem, read_list
from util.parallel import available_cores, map_in_processes

SEVERITIES = ("note", "warning", "error")  # the index is the exit status
MAX_OUTSIDE = 0.01  # fraction of the joints; DeepFashion's test split has 19 in 46,982


class Report:
    """Collects problems. `shown`: how many names are listed with each."""

    def __init__(self, shown: int) -> None:
        self.shown, self.entries = shown, []

    def add(self, severity: str, text: str, names: Iterable[str] = ()) -> None:
        names = list(names)
        self.entries.append((severity, f"{text}:\n{summarize(names, self.shown)}" if names else text))

    def exit_status(self) -> int:
        return max((SEVERITIES.index(severity) for severity, _ in self.entries), default=0)

    def __str__(self) -> str:
        worst_first = sorted(self.entries, key=lambda entry: -SEVERITIES.index(entry[0]))
        return "\n".join(f"{severity:<8} {text}" for severity, text in worst_first)


class Split(NamedTuple):
    """The files of train or of test. The content of a file that cannot be read is empty."""

    phase: str
    folder: Path
    photos: set[str]  # names of the photos on disk
    keypoints: Mapping[str, np.ndarray]
    pairs: list[Pair]
    used: set[str]  # names in pairs
    named: set[str]  # names in any list
    empty: set[str]  # names whose keypoints are all missing


def read_split(dataset: type[PosePairDataset], root: Path, phase: str, report: Report) -> Split:
    """Read all but the photos' content. Unreadable files and rows that occur twice are added to `report`."""
    pairs_csv, keypoints_csv = (root / name.format(phase=phase) for name in (dataset.pairs_csv, dataset.keypoints_csv))
    pairs = list(read_or_report(read_pairs, pairs_csv, report))
    report_duplicates(map(",".join, pairs), pairs_csv, report)
    keypoints = read_or_report(read_keypoints, keypoints_csv, report)
    if keypoints:
        report_duplicates(read_columns(keypoints_csv, ("name",))["name"], keypoints_csv, report)
    used = {name for pair in pairs for name in pair}
    list_file = root / f"{phase}.lst"
    listed = set(read_or_report(read_list, list_file, report)) if list_file.exists() else set()
    named = used | set(keypoints) | listed
    return Split(
        phase,
        root / phase,
        {name for name in file_names(root / phase) if name in named or is_photo(Path(name))},
        keypoints,
        pairs,
        used,
        named,
        {name for name in keypoints if np.isnan(keypoints[name]).any(1).all()},
    )


def read_or_report(reader: Callable[[Path], Any], path: Path, report: Report) -> Any:
    """What `reader` returns; if it raises UserError, {}."""
    try:
        return reader(path)
    except UserError as error:
        report.add("error", str(error))
        return {}


def report_duplicates(rows: Iterable[str], path: Path, report: Report) -> None:
    if twice := [row for row, times in Counter(rows).items() if times > 1]:
        report.add("warning", f"{path}: {len(twice)} rows come more than once", twice)


def check_names(split: Split, published: dict[str, int], report: Report) -> None:
    """Compare photos with lists, pairs with keypoints, and numbers of photos and pairs with the published ones."""
    if missing := split.named - split.photos:
        needed = missing & split.used
        text = f"{split.folder}: {len(missing)} of {len(split.named)} listed photos are missing"
        severity = "error" if needed or not split.photos else "warning"
        report.add(severity, f"{text}; pairs need {len(needed)} of them" if needed else text, sorted(missing))
    elif not split.photos:
        report.add("error", f"{split.folder}: no photos")
    if split.pairs and split.keypoints and (unlisted := split.photos - split.named):
        report.add("note", f"{split.folder}: {len(unlisted)} photos are in no list", sorted(unlisted))
    if split.keypoints and (unknown := split.used - set(split.keypoints)):
        report.add("error", f"{split.phase}: {len(unknown)} photos in pairs have no keypoints", sorted(unknown))
    for what, expected in published.items():
        count = len(getattr(split, what))
        if count not in (0, expected):  # 0 has already been reported as an error
            report.add("warning", f"{split.phase}: {count} {what}, the published set has {expected}")


def check_poses(split: Split, size: tuple[int, int], report: Report) -> None:
    """Find poses without joints, and joints outside photos of `size` (H, W)."""
    if in_pairs := split.empty & split.used:
        text = f"{split.phase}: {len(in_pairs)} photos in pairs have no joint; the network cannot learn from them"
        report.add("warning", text, sorted(in_pairs))
    if len(split.empty) > len(in_pairs):
        report.add("note", f"{split.phase}: {len(split.empty - in_pairs)} poses without any joint, which no pair uses")
    if not split.keypoints:
        return
    joints = np.stack(list(split.keypoints.values()))  # (photos,18,2)
    outside = ((joints < 0) | (joints >= np.array(size))).any(-1)  # (photos,18); False for a missing joint
    if outside.any():
        share = outside.sum() / (~np.isnan(joints).any(-1)).sum()
        names = [name for name, any_outside in zip(split.keypoints, outside.any(1)) if any_outside]
        text = f"{split.phase}: {outside.sum()} joints ({share:.2%}) lie outside {size[1]} x {size[0]} pixels"
        report.add("note" if share <= MAX_OUTSIDE else "warning", f"{text}, in {len(names)} photos", names)


def check_photos(splits: list[Split], size: tuple[int, int], workers: int, report: Report) -> None:
    """Decode every photo and compare its size (H, W)."""
    photos = [(split, name) for split in splits for name in sorted(split.photos)]
    paths = [split.folder / name for split, name in photos]
    problems = map_in_processes(partial(photo_problem, size=size), paths, workers, "photos")
    found: dict[tuple[str, str], list[str]] = {}
    for problem, (split, name) in zip(problems, photos):
        if problem:
            severity = "error" if name in split.used else "warning"
            found.setdefault((severity, split.phase), []).append(problem)
    for (severity, phase), texts in found.items():
        which = "that pairs need" if severity == "error" else "that no pair needs"
        report.add(severity, f"{phase}: {len(texts)} photos {which} cannot be used", texts)


def check_disjoint(splits: list[Split], dataset: type[PosePairDataset], report: Report) -> None:
    """Find identities (outfits, by the photos' names) that are in both splits."""
    identities = [{dataset.outfit(name) for name in split.named} - set(dataset.distractors) for split in splits]
    if both := set.intersection(*identities):
        report.add("warning", f"{len(both)} identities are in {' and '.join(s.phase for s in splits)}", sorted(both))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--dataset_mode", required=True, choices=dataset_names(), help="layout and names of the data set"
    )
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
    splits = [read_split(dataset, root, phase, report) for phase in dict.fromkeys(args.phases)]
    table = [
        ("", "photos", "published", "pairs", "published", "keypoint rows", "photos in pairs", "identities in pairs")
    ]
    for split in splits:
        published = {} if args.own_data else dict(zip(("photos", "pairs"), dataset.published.get(split.phase, ())))
        check_names(split, published, report)
        check_poses(split, dataset.stored_size, report)
        expected = [published.get(what, "-") for what in ("photos", "pairs")]
        counts = len(split.keypoints), len(split.used), len(set(map(dataset.outfit, split.used)))
        table.append((split.phase, len(split.photos), expected[0], len(split.pairs), expected[1], *counts))
    check_photos(splits, dataset.stored_size, args.workers, report)
    if len(splits) == 2:
        check_disjoint(splits, dataset, report)

    for phase, *row in table:
        print(f"{phase:<5}" + "".join(f"{cell:>{len(title) + 2}}" for cell, title in zip(row, table[0][1:])))
    if report.entries:
        print(report)
    print(f"{root}: {('fit to train', 'usable, with warnings', 'broken')[report.exit_status()]}")
    sys.exit(report.exit_status())


if __name__ == "__main__":
    try:
        run_main(main)
    except Exception:  # Python would exit with 1, which means "usable" here
        traceback.print_exc()
        sys.exit(3)
