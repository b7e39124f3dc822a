"""Who is in which image, and which real photos each generated image is compared with."""

import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from data import find_dataset
from data.pairs import Pair
from metrics.pairing import Matches, Problem, Sample
from util.errors import UserError, summarize
from util.files import write_text

JUNK_PERSON = "-1"  # detections of Market-1501 that show no person; fast-reid's reader leaves them out, too
OWN_PHOTO = {"real": "target", "copy_source": "source"}  # the photo of a pair that a baseline's query is
# How many people a classifier knows -> what the training photos have so many of. DeepFashion's are counted in PATN's
# list, with and without photos of the view `flat`, and with and without the category.
CLASSES = {
    12_029: "outfit", 12_025: "outfit", 11_938: "outfit", 7_654: "item", 7_651: "item", 7_565: "item", 751: "person",
}  # fmt: skip


class Lists(NamedTuple):
    """`queries` (a row for each sample) and `gallery` (for each photo, indexed by name): path, person, camera.

    left_out: the names of the photos that each query's gallery lacks.
    """

    queries: pd.DataFrame
    gallery: pd.DataFrame
    left_out: list[list[str]]


def person_of(args: Namespace) -> Callable[[str], str]:
    """The function that finds the person in a photo's name, as --identity says."""
    dataset = find_dataset(args.dataset_mode)
    return dataset.outfit if args.identity == "outfit" else dataset.identity


def gallery_names(args: Namespace, photos: Iterable[str]) -> list[str]:
    """Those of the sorted `photos` of --gt_path that show a person."""
    identity = find_dataset(args.dataset_mode).identity
    return [name for name in photos if identity(name) != JUNK_PERSON]


def split_by_person(args: Namespace, samples: Iterable[Sample]) -> Matches:
    """The samples whose source and target show one person, and a problem for each other: whom should it show?"""
    person, same, problems = person_of(args), [], []
    for sample in samples:
        if sample.source is None or person(sample.source) == person(sample.target):
            same.append(sample)
        else:
            persons = f"{person(sample.source)} and {person(sample.target)}"
            problems.append(Problem("two persons", f"{sample.generated}: {persons}"))
    return same, problems


def make_lists(
    args: Namespace, samples: Sequence[Sample], photos: Sequence[str], pairs: Sequence[Pair] | None
) -> Lists:
    """`photos`: the `gallery_names`. A query has the person and, with --cameras names, the camera of its target."""
    if args.gallery == "pairs":
        paired = {name for pair in pairs for name in pair}
        photos = [name for name in photos if name in paired]
    targets = [sample.target for sample in samples]
    persons, _ = pd.factorize(pd.Index(map(person_of(args), [*targets, *photos])), sort=True)
    apart = args.cameras == "apart"
    cameras = [0] * len(targets) + [1] * len(photos) if apart else read_cameras(args, [*targets, *photos])
    paths = [*(sample.generated for sample in samples), *(args.gt_path / name for name in photos)]
    table = pd.DataFrame({"path": paths, "person": persons, "camera": cameras})
    roles = {*args.without} | ({OWN_PHOTO[args.baseline]} if args.baseline else set())
    left_out = [[getattr(sample, role) for role in sorted(roles)] for sample in samples]
    return Lists(table[: len(targets)], table[len(targets) :].set_index(pd.Index(photos)), left_out)


def read_cameras(args: Namespace, names: Sequence[str]) -> list[int]:
    """The number of the camera in each photo's name. UserError for names without one."""
    pattern = find_dataset(args.dataset_mode).camera_pattern
    found = [re.search(pattern, name) if pattern else None for name in names]
    if without := [name for name, match in zip(names, found) if not match]:
        advice = "names without the number of a camera; give --cameras apart"
        raise UserError(f"--cameras names: {advice}:\n{summarize(without)}")
    return [int(match[1]) for match in found]


def write_list(path: Path, lists: Lists) -> None:
    """A csv of both lists: role, absolute path, person, camera."""
    table = pd.concat({"query": lists.queries, "gallery": lists.gallery}, names=["role"]).reset_index("role")
    table["path"] = [os.path.abspath(photo) for photo in table["path"]]
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def describe_classes(classes: int | None, identity: str) -> tuple[str, bool]:
    """How many people the weights were trained on and what that fits, and whether it contradicts --identity."""
    if classes is None:
        return "the weights have no classifier, so that it is unknown on whom they were trained", False
    fits = CLASSES.get(classes)
    people = "people of Market-1501" if fits == "person" else f"{fits}s of DeepFashion"
    told = f"as many as training {people}" if fits else "which is no known number of people or outfits"
    return f"the weights were trained on N = {classes:,} people, {told}", fits not in (None, identity)
