"""metrics/pairing.py: which image is compared with which photo, and what is reported instead."""

from pathlib import Path

from data.pairs import Pair, result_name
from metrics.pairing import Problem, Problems, match_names, match_pairs

FOLDER = Path("results")


def match(results: list[str], targets: list[str], sources: list[str] | None = None) -> tuple[list[tuple], list[str]]:
    """match_names' samples as tuples, and the kinds of its problems."""
    samples, problems = match_names(FOLDER, results, targets, targets if sources is None else sources)
    return [tuple(sample) for sample in samples], [problem.kind for problem in problems]


def test_match_names_finds_source_and_target():
    results = ["a_2_b_vis.jpg", "b_2_a_vis.png"]
    assert match(results, ["a.jpg", "b.jpg"]) == (
        [("a.jpg", "b.jpg", FOLDER / results[0]), ("b.jpg", "a.jpg", FOLDER / results[1])], [],
    )  # fmt: skip


def test_match_names_with_folders_in_names_finds_photos():
    samples, problems = match([result_name("x/a.jpg", "y/b.jpg")], ["x/a.jpg", "y/b.jpg"])
    assert samples[0][:2] == ("x/a.jpg", "y/b.jpg")
    assert not problems


def test_match_names_with_separator_inside_prefers_known_sources():
    """1_2_2_2_3 is '1' to '2_2_3', '1_2' to '2_3' (overlapping), or '1_2_2' to '3'."""
    result = ["1_2_2_2_3_vis.jpg"]
    assert match(result, ["1_2_2.jpg", "3.jpg"])[0][0][:2] == ("1_2_2.jpg", "3.jpg")
    assert match(result, ["1.jpg", "2_2_3.jpg"])[0][0][:2] == ("1.jpg", "2_2_3.jpg")
    # both targets exist, but only one source
    assert match(result, ["1.jpg", "2_2_3.jpg", "3.jpg"])[0][0][:2] == ("1.jpg", "2_2_3.jpg")
    assert match(result, ["1.jpg", "2_2_3.jpg", "1_2_2.jpg", "3.jpg"]) == ([], ["ambiguous"])


def test_match_names_without_source_photo_gives_none():
    samples, problems = match(["a_2_b_vis.jpg"], ["b.jpg"])
    assert samples[0][:2] == (None, "b.jpg")
    assert not problems


def test_match_names_without_target_is_extra():
    results = ["a_2_c_vis.jpg", "a_2_b.jpg", "b_vis.jpg"]
    assert match(results, ["a.jpg", "b.jpg"]) == ([], ["extra"] * 3)


def test_match_names_in_two_formats_is_ambiguous():
    assert match(["a_2_b_vis.jpg", "a_2_b_vis.png"], ["a.jpg", "b.jpg"])[1] == ["ambiguous"]
    assert match(["a_2_b_vis.jpg"], ["a.jpg", "b.jpg", "b.png"])[1] == ["ambiguous"]


def test_match_pairs_reports_missing_and_extra():
    pairs = [Pair("a.jpg", "b.jpg"), Pair("b.jpg", "a.jpg"), Pair("a.jpg", "c.jpg"), Pair("c.jpg", "a.jpg")]
    results = ["b_2_a_vis.png", "a_2_b_vis.jpg", "a_2_c_vis.jpg", "z_2_a_vis.jpg"]
    samples, problems = match_pairs(pairs, FOLDER, results, ["a.jpg", "b.jpg"])
    assert [sample[:2] for sample in samples] == pairs[:2]
    assert [sample.generated.name for sample in samples] == ["a_2_b_vis.jpg", "b_2_a_vis.png"]
    assert [str(problem).split(" ")[0] for problem in problems] == ["missing:", "missing:", "extra:"]


def test_match_pairs_names_another_unicode_form():
    pairs = [Pair("\u00e9.jpg", "b.jpg"), Pair("b.jpg", "\u00e9.jpg")]
    results = ["e\u0301_2_b_vis.jpg", "b_2_\u00e9_vis.jpg"]
    texts = [problem.text for problem in match_pairs(pairs, FOLDER, results, ["b.jpg", "e\u0301.jpg"])[1]]
    assert sum("it is there in another Unicode form, NFD" in text for text in texts) == 2


def test_match_names_with_characters_that_windows_reserves_finds_photos():
    assert match([result_name("a?.jpg", "b:.jpg")], ["a?.jpg", "b:.jpg"])[0][0][:2] == ("a?.jpg", "b:.jpg")


def test_match_pairs_sharing_a_result_is_ambiguous():
    pairs = [Pair("a/b.jpg", "c.jpg"), Pair("a_b.jpg", "c.jpg")]
    samples, problems = match_pairs(pairs, FOLDER, ["a_b_2_c_vis.jpg"], ["c.jpg"])
    assert (len(samples), [problem.kind for problem in problems]) == (1, ["ambiguous"])


def test_match_pairs_in_two_formats_is_ambiguous():
    results = ["a_2_b_vis.jpg", "a_2_b_vis.png"]
    samples, problems = match_pairs([Pair("a.jpg", "b.jpg")], FOLDER, results, ["b.jpg"])
    assert (samples, [problem.kind for problem in problems]) == ([], ["ambiguous"])


def test_problems_are_collected_once():
    problems = Problems(allowed=True)
    problem, other = Problem("unreadable", "a.jpg"), Problem("missing", "a.jpg")
    problems.add([problem, problem])
    problems.add([other, problem])
    assert list(problems) == [problem, other]
