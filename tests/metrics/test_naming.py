"""metrics/naming.py: the file names of other projects. All names are made up."""

from pathlib import Path

import pytest

from data.pairs import Pair
from metrics import metrics
from metrics.naming import candidate_names, photo_keys
from metrics.pairing import match_pairs
from tests.metrics.conftest import read_jsonl
from util.errors import UserError

# the view of the second keeps its underscore in some styles, where "_2_side" looks like the separator "_2_"
FRONT, SIDE = "fashionMENDenimid0000000101_1front.jpg", "fashionMENDenimid0000000101_2side.jpg"
SHIRT = "fashionWOMENBlouses_Shirtsid0000000203_4full.jpg"
PAIRS = [Pair(FRONT, SIDE), Pair(SIDE, FRONT), Pair(SHIRT, SIDE)]
MARKET = [
    Pair("0001_c1s1_000001_00.jpg", "0001_c2s1_000002_01.jpg"),
    Pair("1488_c4s6_022291_05.jpg.jpg", "1488_c3s3_071344_02.jpg.jpg"),
]


def dashed(name: str) -> str:
    """As IMAGPose writes DeepFashion's names: MEN-Denim-id_00000001-01_1_front."""
    ((sex, category, item, outfit, number, view, _),) = photo_keys(name)
    return f"{sex}-{'Blouses_Shirts' if category == 'BlousesShirts' else category}-id_{item}-{outfit}_{number}_{view}"


STYLES = {
    "patn": lambda s, t: f"{s}___{t}_vis.jpg",
    "dptn, gfla": lambda s, t: f"{s[:-4]}_2_{t[:-4]}_vis.jpg",
    "nted, pidm": lambda s, t: f"{s[:-4]}_2_{t[:-4]}_vis.png",
    "pise": lambda s, t: f"{s[:-4]}_{t[:-4]}_vis.jpg",
    "spig": lambda s, t: f"{s[:-4]}_{t[:-4]}.jpg".replace("fashion", "fasion"),
    "pcdms": lambda s, t: f"{s[:-4]}_to_{t[:-4]}.png",
    "pcdms, dashed": lambda s, t: f"{dashed(s)}_to_{dashed(t)}.png",
    "mcld, cfld": lambda s, t: f"{s[:-4]}_2_{t[:-4]}.png",
    "fpdm": lambda s, t: f"{dashed(s).replace('-', '')}.jpg_2_{dashed(t).replace('-', '')}.jpg.png",
    "pidm's photos": lambda s, t: f"deep{s[:-4]}_2_deep{t[:-4]}_vis.png",
}


@pytest.mark.parametrize("style", STYLES)
def test_reader_finds_the_pair_in_every_style(style):
    results = [STYLES[style](*pair) for pair in PAIRS]
    candidates = candidate_names(PAIRS, results, "cfld")
    assert candidates == {pair: [name] for pair, name in zip(PAIRS, results)}


@pytest.mark.parametrize("style", [style for style in STYLES if style not in ("pcdms, dashed", "fpdm")])
def test_reader_finds_market_pairs(style):
    results = [STYLES[style](*pair) for pair in MARKET]
    assert candidate_names(MARKET, results, "pidm") == {pair: [name] for pair, name in zip(MARKET, results)}


def test_file_with_one_or_three_photos_is_extra_and_a_second_file_ambiguous():
    good = STYLES["pcdms"](*PAIRS[0])
    more = [f"{SIDE[:-4]}.png", f"{FRONT[:-4]}_{SIDE[:-4]}_{SIDE[:-4]}.png"]
    samples, problems = match_pairs(PAIRS[:1], Path("r"), [good, *more], [SIDE], "pcdms")
    assert [sample.generated.name for sample in samples] == [good]
    assert [problem.kind for problem in problems] == ["extra", "extra"]
    samples, problems = match_pairs(PAIRS[:2], Path("r"), [good, STYLES["pise"](*PAIRS[0])], [SIDE, FRONT], "pcdms")
    assert (samples, [problem.kind for problem in problems]) == ([], ["ambiguous", "missing"])
    assert f"a result of {SIDE} and {FRONT}" in problems[1].text


def test_reader_refuses_photos_of_other_data_sets():
    with pytest.raises(UserError, match="0_a.jpg or 0_b.jpg is neither: give a PATTERN"):
        candidate_names([Pair("0_a.jpg", "0_b.jpg")], [], "cfld")


def test_pattern_pairs_any_other_names(call, flags, results, market):
    for path in list(results.iterdir()):
        source, target = path.stem.removesuffix("_vis").split("_2_")
        path.rename(results / f"{target}<-{source}.out{path.suffix}")
    done = call(metrics, *flags, "--metrics=l1", "--naming={target}<-{source}.out.jpg")
    assert done.returncode == 2  # half of the files are PNG
    assert done.stderr.count("missing: ") == 4
    for path in list(results.glob("*.png")):
        path.rename(path.with_suffix(".jpg"))
    assert call(metrics, *flags, "--metrics=l1", "--naming={target}<-{source}.out.jpg").returncode == 0
    assert read_jsonl(results)[0]["metrics"]["l1"]["n"] == 8


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--naming=mine", "neither one of dptn, patn"),
        ("--naming={source}.png", "nor a PATTERN with {source} and {target}"),
    ],
)
def test_bad_naming_is_one_clear_error(flag, message, call, flags):
    done = call(metrics, *flags, "--metrics=l1", flag)
    assert done.returncode == 2
    assert message in done.stderr
    done = call(metrics, *flags, "--metrics=l1", "--naming=cfld", "--pairs=none")
    assert "--naming cfld needs --pairs" in done.stderr
