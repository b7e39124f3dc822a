"""argparse types of numbers."""

from argparse import ArgumentTypeError

import pytest

from util.arguments import count, number, positive_int, weight


def test_number_accepts_its_bounds():
    parse = number(float, 0, 1)
    assert [parse("0"), parse("1"), parse("5e-1")] == [0, 1, 0.5]
    assert (positive_int("1"), count("0"), weight("2.5")) == (1, 0, 2.5)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (positive_int, "0", "'0' is not a whole number of at least 1"),
        (count, "1.5", "'1.5' is not a whole number of at least 0"),
        (weight, "nan", "'nan' is not a number of at least 0"),
        (weight, "inf", "'inf' is not a number of at least 0"),
        (number(float, 0, 1), "x", "'x' is not a number from 0 to 1"),
        (number(float), "abc", "'abc' is not a number"),
        (number(float), "-inf", "'-inf' is not a number"),
    ],
)
def test_number_rejects_other_values(parse, text, message):
    with pytest.raises(ArgumentTypeError) as caught:
        parse(text)
    assert str(caught.value) == message
