"""Which generated image is compared with which photo; nothing guesses, nothing is passed over."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.pairs import Pair, photo_stem, result_name
from util.errors import UserError, summarize
from util.image import IMAGE_FORMATS, is_photo, photo_names


class Sample(NamedTuple):
    """`target` is a name below the folder of targets, `source` likewise, or None where it is not known."""

    source: str | None
    target: str
    generated: Path


class Problem(NamedTuple):
    kind: str  # missing, extra, ambiguous, unreadable, wrong size
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Problems(list[Problem]):
    """Collects problems, each once; unless allowed, raises UserError as soon as there are as many as are ever shown."""

    SHOWN = 10

    def __init__(self, allowed: bool) -> None:
        super().__init__()
        self.allowed = allowed
        self._seen: set[Problem] = set()

    def add(self, problems: Iterable[Problem], last: bool = False) -> None:
        """`last`: nothing will follow, so that any problem is raised now."""
        new = [problem for problem in dict.fromkeys(problems) if problem not in self._seen]
        self.extend(new)
        self._seen.update(new)
        if not self.allowed and len(self) > (0 if last else self.SHOWN):
            raise UserError(
                f"not all images can be evaluated (--allow_missing would leave these out, and count them):\n"
                f"{summarize(self, self.SHOWN)}"
            )

    def counts(self) -> dict[str, int]:
        kinds = [problem.kind for problem in self]
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def photos_below(folder: Path, flag: str) -> list[str]:
    """Names of the photos below `folder`; UserError where there is no such folder, or none in it."""
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    names = sorted(name for name in photo_names(folder) if is_photo(Path(name)))
    if not names:
        raise UserError(f"{flag} {folder}: no photos (jpg, png) in it")
    return names


def match_pairs(
    pairs: Sequence[Pair], results_dir: Path, results: Iterable[str], targets: Iterable[str]
) -> tuple[list[Sample], list[Problem]]:
    """A sample for each pair whose target photo and result are there, in the order of `pairs`.

    `results` and `targets` are names of photos. A result that belongs to no pair is extra.
    """
    left, targets = set(results), set(targets)
    samples, problems, owners = [], [], {}
    for pair in pairs:
        names = [result_name(*pair, image_format) for image_format in IMAGE_FORMATS]
        there = [name for name in names if name in left or name in owners]
        if len(there) > 1:
            problems.append(Problem("ambiguous", f"both {' and '.join(there)} in {results_dir}"))
        elif not there:
            problems.append(Problem("missing", f"{results_dir / names[0]}"))
        elif owners.setdefault(there[0], pair) != pair:
            problems.append(Problem("ambiguous", f"{there[0]} would be the result of two pairs, {pair} is one"))
        elif pair.target not in targets:
            problems.append(Problem("missing", f"target photo {pair.target}"))
        else:
            samples.append(Sample(*pair, results_dir / there[0]))
        left -= set(there)
    problems += [Problem("extra", f"{results_dir / name} belongs to no pair") for name in sorted(left)]
    return samples, problems


def match_names(
    results_dir: Path, results: Iterable[str], targets: Iterable[str], sources: Iterable[str]
) -> tuple[list[Sample], list[Problem]]:
    """A sample for each result whose name, taken apart, holds the name of a target photo.

    Where a name can be taken apart in several ways ('_2_' inside a photo's name), those with a known source photo come
    first. What is missing cannot be known without a list of pairs.
    """
    target_names, source_names = _by_stem(targets), _by_stem(sources)
    samples, problems, seen = [], [], set()
    for name in results:
        stem = photo_stem(name)
        readings = [
            (source_names.get(source, [None]), target_names[target])
            for source, target in _readings(stem)
            if target in target_names
        ]
        readings = [reading for reading in readings if reading[0] != [None]] or readings
        if stem in seen:
            problems.append(Problem("ambiguous", f"{results_dir / name}: there in two formats"))
        elif not readings:
            problems.append(Problem("extra", f"{results_dir / name}: not SOURCE_2_TARGET_vis of a target photo"))
        elif len(readings) > 1 or len(readings[0][1]) > 1:
            problems.append(Problem("ambiguous", f"{results_dir / name} fits several photos; --pairs tells"))
        else:
            (source, *others), (target,) = readings[0]
            samples.append(Sample(None if others else source, target, results_dir / name))
        seen.add(stem)
    return samples, problems


def copy_sources(
    pairs: Sequence[Pair], source_dir: Path, sources: Iterable[str], targets: Iterable[str]
) -> tuple[list[Sample], list[Problem]]:
    """The source photo of each pair in the place of a generated image."""
    photos = {"source": set(sources), "target": set(targets)}
    samples, problems = [], []
    for pair in pairs:
        gone = [f"{role} photo {name}" for role, name in pair._asdict().items() if name not in photos[role]]
        if gone:
            problems += [Problem("missing", text) for text in gone]
        else:
            samples.append(Sample(*pair, source_dir / pair.source))
    return samples, problems


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(photo_stem(name), []).append(name)
    return stems


def _readings(stem: str) -> list[tuple[str, str]]:
    """Every (source stem, target stem) that would make the file stem `{source}_2_{target}_vis`."""
    body = stem.removesuffix("_vis")
    if body == stem:
        return []
    places = [place for place in range(len(body)) if body.startswith("_2_", place)]
    return [(body[:place], body[place + 3 :]) for place in places]
