"""Who is taken of several people."""

import numpy as np
import pytest

from inference.people import Person, describe_choice, extent, known_joints, prominence, rank
from tests.inference.pose_files import PERSON, PHANTOM


def test_prominence_is_extent_times_joints_times_confidence():
    person = Person(PERSON, 0.5)
    assert known_joints(person) == 16
    assert extent(person) == pytest.approx(np.hypot(152, 469))
    assert prominence(person) == pytest.approx(np.hypot(152, 469) * 16 / 2)


def test_rank_prefers_a_whole_person_to_a_phantom():
    people = [Person(PHANTOM, 0.12), Person(PERSON, 0.9)]
    assert rank(people)[0].confidence == 0.9
    assert rank(people, "largest")[0].confidence == 0.12
    assert rank(people, "first")[0].confidence == 0.12


def test_rank_prefers_the_larger_of_two_equally_sure_people():
    child, adult, far = Person(PERSON / 2, 0.9), Person(PERSON, 0.9), Person(PERSON / 3, 0.95)
    assert [extent(person) for person in rank([child, adult, far])] == sorted(map(extent, [child, adult, far]))[::-1]


def test_rank_keeps_the_order_of_equal_people():
    first, second = Person(PERSON), Person(PERSON.copy())
    assert rank([first, second])[0].keypoints is first.keypoints


def test_describe_choice_names_both():
    assert describe_choice([Person(PERSON, 0.9), Person(PHANTOM, 0.12)]) == (
        "2 people, taken: 16 joints of confidence 0.90, 493 pixels in extent around x = 198, y = 218; "
        "next: 3 joints of confidence 0.12, 2393 pixels in extent around x = 973, y = 647"
    )
