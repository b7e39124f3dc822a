"""How projects name the results of a pair of photos.

`dptn` is the exact rule of data/pairs.py. One tolerant reader serves the other projects of OTHERS: it finds the names
of two photos of DeepFashion or Market-1501 in a file name, source first, however they are written. It never splits a
name at '_2_', which many photos' own names contain. A PATTERN names the files of all other projects.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from data.pairs import Pair, result_name, result_stem
from util.errors import UserError
from util.image import IMAGE_FORMATS

OTHERS = ("patn", "gfla", "pidm", "cfld", "pcdms")
# DeepFashion's fashion/WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg, with '/', '-', '_' or nothing between the
# parts; or Market-1501's 0001_c1s1_000001_00.jpg
PHOTO = re.compile(
    r"(?P<sex>WOMEN|MEN)[-_/]?(?P<category>[A-Za-z]+(?:_[A-Za-z]+)?)[-_/]?id_?(?P<id>\d{8})[-_/]?(?P<outfit>\d{2})"
    r"_?(?P<number>\d)_?(?P<view>front|side|back|full|additional|flat)|(?P<market>\d{4}_c\ds\d_\d{6}_\d{2})"
)

Key = tuple[str | None, ...]


def photo_keys(name: str) -> list[Key]:
    """The photos whose names are in the name of a file, in order. Spellings of one photo give the same key."""
    return [tuple(part and part.replace("_", "") for part in match.groups()) for match in PHOTO.finditer(name)]


def candidate_names(pairs: Sequence[Pair], results: Iterable[str], naming: str) -> dict[Pair, list[str]]:
    """For each pair the file names that its result may have; the tolerant reader gives those among `results` only.

    UserError where the tolerant reader does not know the names of the photos.
    """
    if naming == "dptn":
        return {pair: [result_name(*pair, image_format) for image_format in IMAGE_FORMATS] for pair in pairs}
    if naming not in OTHERS:
        return {pair: [_fill_in(naming, pair)] for pair in pairs}
    found = defaultdict(list)
    for name in results:
        found[tuple(photo_keys(name))].append(name)
    names = {}
    for pair in pairs:
        keys = [photo_keys(name) for name in pair]
        if [len(key) for key in keys] != [1, 1]:
            raise UserError(
                f"--naming {naming} reads names of DeepFashion's and Market-1501's photos, but {pair.source} or "
                f"{pair.target} is neither: give a PATTERN such as '{{source}}_to_{{target}}.png'"
            )
        names[pair] = found.get((keys[0][0], keys[1][0]), [])
    return names


def _fill_in(pattern: str, pair: Pair) -> str:
    return pattern.replace("{source}", result_stem(pair.source)).replace("{target}", result_stem(pair.target))
