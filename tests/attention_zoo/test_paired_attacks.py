"""Pairs of attacks: gaps, their intervals, and when they are an alarm."""

import math

import pytest

from attention_zoo.results.paired_attacks import Pair, accuracy_interval, best_of_all, wrong_pairs

TITLES = {"pgd": "PGD", "square": "Square", "transfer": "Transfer"}


def pair(other="square", images=200, only_other=30, only_reference=4, reference="pgd"):
    return Pair(reference, other, images, only_other, only_reference)


def test_wilsons_interval():
    assert accuracy_interval(16, 48) == pytest.approx((21.68, 47.46), abs=0.01)  # by hand, z = 1.959964
    assert accuracy_interval(0, 10)[0] == 0
    assert accuracy_interval(10, 10)[1] == 100


def test_the_gap_and_its_interval():
    assert pair().gap == 13
    # Agresti and Min: (30 - 4) / 202, +- 1.96 sqrt(35 - 26^2 / 202) / 202
    half = 1.959964 * math.sqrt(35 - 26**2 / 202) / 202
    assert pair().interval == pytest.approx((100 * (26 / 202 - half), 100 * (26 / 202 + half)), abs=1e-4)
    low, high = pair(only_other=0, only_reference=0).interval
    assert low == -high < 0
    assert all(abs(end) <= 100 for end in pair(images=1, only_other=1, only_reference=0).interval)
    assert math.isnan(pair(images=0, only_other=0, only_reference=0).gap)


@pytest.mark.parametrize(
    ("numbers", "alarming"),
    [
        ((200, 30, 4), True),
        ((200, 5, 4), False),  # within sampling noise
        ((10_000, 60, 0), False),  # sure, and less than a point
        ((10_000, 120, 0), True),
        ((200, 4, 30), False),
        ((3, 1, 0), False),
    ],
)
def test_when_it_is_an_alarm(numbers, alarming):
    found = pair(images=numbers[0], only_other=numbers[1], only_reference=numbers[2])
    assert found.alarming == alarming
    assert found.line(TITLES, "VarsS").startswith("PGD, VarsS: Square lowers the accuracy by ")


def test_the_best_of_all():
    pairs = [pair(only_other=5), pair("transfer", 100, 9, 0), pair("fgsm", 0, 0, 0), pair(reference="strong")]
    assert best_of_all(pairs) == {"pgd": pairs[1], "strong": pairs[3]}
    assert best_of_all([]) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"other": "cube"}, "must be columns"),
        ({"images": -1}, "0 or more"),
        ({"only_other": 1.5}, "0 or more"),
        ({"images": 33}, "too many"),
    ],
)
def test_what_cannot_be(changes, said):
    (line,) = wrong_pairs("here", [pair(**changes)], ["pgd", "square"])
    assert line.startswith("here: ")
    assert said in line
    assert not list(wrong_pairs("here", [pair()], ["pgd", "square"]))
