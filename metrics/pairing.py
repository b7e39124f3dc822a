"""Which generated image is compared with which photo. Nothing is guessed or skipped silently."""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.pairs import Pair, photo_stem, result_stem
from metrics.naming import candidate_names
from util.errors import UserError, summarize
from util.files import explain_missing
from util.image import photo_names


class Sample(NamedTuple):
    """`source` and `target` are photo names, relative to their folders; `source` is None where it is not known."""

    source: str | None
    target: str
    generated: Path


class Problem(NamedTuple):
    """An image that cannot be evaluated, and why."""

    kind: str  # missing, extra, ambiguous, unreadable, wrong size, two persons
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


Matches = tuple[list[Sample], list[Problem]]


class Problems(dict[Problem, None]):
    """Every problem so far, each once. Unless `allowed`, there is a UserError when there are more than SHOWN; it gives
    `advice`."""

    SHOWN = 10

    def __init__(self, allowed: bool, advice: str = " (--allow_missing would leave these out, and count them)") -> None:
        super().__init__()
        self.allowed, self.advice = allowed, advice

    def add(self, problems: Iterable[Problem], last: bool = False) -> None:
        """`last`: no more will follow, so even a single problem is an error now."""
        self.update(dict.fromkeys(problems))
        if not self.allowed and len(self) > (0 if last else self.SHOWN):
            raise UserError(f"not all images can be evaluated{self.advice}:\n{summarize(list(self), self.SHOWN)}")

    def counts(self) -> dict[str, int]:
        """How many problems of each kind there are."""
        return dict(Counter(problem.kind for problem in self))


def photos_below(folder: Path, flag: str, expected: Container[str] = ()) -> list[str]:
    """Sorted names of the photos below `folder`; UserError where there is no such folder or no photo in it.

    A note counts the files that are no photos, except those `expected` there.
    """
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    if not (names := photo_names(folder, expected)):
        raise UserError(f"{flag} {folder}: no photos in it")
    return names


def match_pairs(
    pairs: Sequence[Pair], results_dir: Path, results: Iterable[str], targets: Iterable[str], naming: str = "dptn"
) -> Matches:
    """A sample for each pair whose target photo and result exist, in the order of `pairs`.

    `results` and `targets` are file names, `naming` a --naming. A result that belongs to no pair is an "extra" problem.
    """
    results, targets = set(results), set(targets)
    reasons = explain_missing({pair.target for pair in pairs} - targets, targets)
    candidates = candidate_names(pairs, results, naming)
    reasons |= explain_missing({name for names in candidates.values() for name in names} - results, results)
    samples, problems = [], []
    owners: dict[str, Pair] = {}  # result -> the first pair that it fits
    for pair in pairs:
        names = candidates[pair]
        found = [name for name in names if name in results]
        others = [name for name in found if owners.setdefault(name, pair) != pair]  # results of an earlier pair
        if len(found) > 1:
            problems.append(Problem("ambiguous", f"both {' and '.join(found)} in {results_dir}"))
        elif not found:
            reason = next((reasons[name] for name in names if name in reasons), "")
            wanted = (
                results_dir / names[0] if names else f"a result of {pair.source} and {pair.target} in {results_dir}"
            )
            problems.append(Problem("missing", f"{wanted}{reason}"))
        elif others:
            both = f"{tuple(owners[found[0]])} and {tuple(pair)}"
            problems.append(Problem("ambiguous", f"{found[0]} would be the result of two pairs, {both}"))
        elif pair.target not in targets:
            problems.append(Problem("missing", f"target photo {pair.target}{reasons.get(pair.target, '')}"))
        else:
            samples.append(Sample(*pair, results_dir / found[0]))
    extra = sorted(results - set(owners))
    return samples, problems + [Problem("extra", f"{results_dir / name} belongs to no pair") for name in extra]


def match_names(results_dir: Path, results: Iterable[str], targets: Iterable[str], sources: Iterable[str]) -> Matches:
    """A sample for each result whose name contains the name of a target photo.

    Where a name can be split in several ways ('_2_' inside a photo's name), those with a known source photo take
    precedence. Missing results cannot be detected without a list of pairs.
    """
    target_names, source_names = _by_stem(targets), _by_stem(sources)
    samples, problems, seen = [], [], set()
    for name in results:
        stem = photo_stem(name)
        splits = [(source, target) for source, target in _split_name(stem) if target in target_names]
        splits = [split for split in splits if split[0] in source_names] or splits
        photos = [target_names[target] for _, target in splits]
        if stem in seen:
            problems.append(Problem("ambiguous", f"{results_dir / name}: exists in two formats"))
        elif not splits:
            problems.append(Problem("extra", f"{results_dir / name}: not SOURCE_2_TARGET_vis of a target photo"))
        elif len(photos) > 1 or len(photos[0]) > 1:
            problems.append(Problem("ambiguous", f"{results_dir / name} fits several photos; give --pairs"))
        else:
            known = source_names.get(splits[0][0], [])
            samples.append(Sample(known[0] if len(known) == 1 else None, photos[0][0], results_dir / name))
        seen.add(stem)
    return samples, problems


def match_sources(pairs: Sequence[Pair], source_dir: Path, sources: Iterable[str], targets: Iterable[str]) -> Matches:
    """A sample for each pair with the source photo as the generated image: the baseline copy_source."""
    photos = {"source": set(sources), "target": set(targets)}
    samples, problems = [], []
    for pair in pairs:
        missing = [f"{role} photo {name}" for role, name in pair._asdict().items() if name not in photos[role]]
        problems += [Problem("missing", text) for text in missing]
        if not missing:
            samples.append(Sample(*pair, source_dir / pair.source))
    return samples, problems


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    stems = defaultdict(list)
    for name in names:
        stems[result_stem(name)].append(name)
    return stems


def _split_name(stem: str) -> list[tuple[str, str]]:
    """Every (source stem, target stem) whose result has the file stem `{source}_2_{target}_vis`."""
    body = stem.removesuffix("_vis")
    starts = [start for start in range(len(body)) if body.startswith("_2_", start)] if body != stem else []
    return [(body[:start], body[start + 3 :]) for start in starts]
