"""Where the next click goes, on masks made by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import ndimage

import attention_zoo as az
from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE
from tasks.clicks import next_click, number_of_clicks
from tasks.clicks.annotator import squared_depth
from tasks.clicks.sampling import sample_clicks, sample_corrections, sample_deep


def rectangle(size, top, left, bottom, right):
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = np.zeros((12, 16), dtype=bool)


def test_the_first_click_is_the_middle_of_the_object():
    target = rectangle((12, 16), 2, 3, 9, 14)  # 7 x 11: rows 2..8, columns 3..13
    y, x, positive = next_click(NOTHING, target)
    assert (y, x, positive) == (5, 6, True)  # several are 4 deep; the first in row-major order


def test_the_border_of_the_image_is_a_border_of_the_error():
    target = rectangle((12, 16), 0, 0, 5, 5)
    assert next_click(NOTHING, target) == (2, 2, True)


def test_the_deeper_error_is_clicked_though_the_other_is_larger():
    target = rectangle((20, 40), 2, 2, 9, 9)  # 7 x 7, missed
    prediction = rectangle((20, 40), 12, 2, 17, 40)  # 5 x 38, false
    assert next_click(prediction, target) == (5, 5, True)
    assert next_click(target, prediction) == (5, 5, False)


def test_a_tie_is_negative():
    target, prediction = rectangle((12, 16), 1, 1, 6, 6), rectangle((12, 16), 1, 8, 6, 13)
    assert next_click(prediction, target) == (3, 10, False)


def test_ignored_pixels_are_no_error():
    target = rectangle((12, 16), 2, 2, 11, 11)
    ignore = rectangle((12, 16), 0, 0, 8, 16)
    assert next_click(NOTHING, target, ignore=ignore)[0] >= 8
    assert next_click(NOTHING, target, ignore=np.ones_like(target)) is None


@pytest.mark.parametrize("strategy", ["center", "random"])
def test_nothing_is_wrong(strategy):
    target = rectangle((12, 16), 2, 2, 11, 11)
    assert next_click(target, target, strategy=strategy) is None


@pytest.mark.parametrize("strategy", ["center", "random"])
def test_a_pixel_is_clicked_once(strategy):
    target = rectangle((12, 16), 4, 4, 5, 6)
    first = next_click(NOTHING, target, strategy=strategy)
    second = next_click(NOTHING, target, clicks=[first], strategy=strategy)
    assert {first, second} == {(4, 4, True), (4, 5, True)}
    assert next_click(NOTHING, target, clicks=[first, second], strategy=strategy) is None


def test_random_clicks_are_uniform_in_the_largest_region():
    target = rectangle((12, 16), 0, 0, 2, 2) | rectangle((12, 16), 5, 5, 7, 8)
    prediction = rectangle((12, 16), 10, 0, 11, 5)
    generator = torch.Generator().manual_seed(0)
    found = [next_click(prediction, target, strategy="random", generator=generator) for _ in range(600)]
    counts = {click: found.count(click) for click in found}
    assert set(counts) == {(y, x, True) for y in (5, 6) for x in (5, 6, 7)}
    assert min(counts.values()) > 60
    again = torch.Generator().manual_seed(0)
    assert next_click(prediction, target, strategy="random", generator=again) == found[0]
    assert next_click(target, prediction, strategy="random", generator=np.random.default_rng(0))[2] is False


@settings(deadline=None, max_examples=40)
@given(masks=arrays(bool, (3, 9, 11)))
def test_center_is_the_deepest_error_by_another_library(masks):
    prediction, target, ignore = masks
    wrong = [target & ~prediction & ~ignore, prediction & ~target & ~ignore]
    depths = [ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1] for region in wrong]
    found = next_click(torch.from_numpy(prediction), torch.from_numpy(target), ignore=torch.from_numpy(ignore))
    if not (wrong[0] | wrong[1]).any():
        assert found is None
    else:
        y, x, positive = found
        assert positive == (depths[0].max() > depths[1].max())
        assert np.argwhere(np.isclose(depths[1 - positive], depths[1 - positive].max()))[0].tolist() == [y, x]


def test_of_many_that_are_equally_deep_the_first_is_clicked_every_time():
    """Whatever the last digits of OpenCV's distances, which differ from call to call."""
    target = np.zeros((120, 200), dtype=bool)
    for top in range(0, 120, 12):
        for left in range(0, 200, 13):
            target[top : top + 11, left + top // 12 : left + top // 12 + 11] = True
    nothing = np.zeros_like(target)
    assert {next_click(nothing, target) for _ in range(50)} == {(5, 5, True)}
    expected = np.rint(ndimage.distance_transform_edt(np.pad(target, 1))[1:-1, 1:-1] ** 2)
    for _ in range(50):
        np.testing.assert_array_equal(squared_depth(target), expected)


@pytest.mark.parametrize(
    "bad", [(math.nan, 3, True), (-1, 3, True), (math.inf, 3, True), (3, -2.0, False), ("3", 3, True)]
)
def test_clicks_made_before_must_be_somewhere(bad):
    with pytest.raises(az.InputError, match="click"):
        next_click(NOTHING, ~NOTHING, clicks=[bad])


def test_bad_input():
    with pytest.raises(az.InputError, match="one size"):
        next_click(NOTHING, NOTHING[1:])
    with pytest.raises(az.InputError, match=r"\(12, 3\) is outside the image of 12 x 16"):
        next_click(NOTHING, ~NOTHING, clicks=[(12, 3, True)])
    with pytest.raises(az.InputError, match="center, random"):
        next_click(NOTHING, ~NOTHING, strategy="centre of mass")


def test_number_of_clicks():
    ious = [[0.5, 0.9, 0.95], [0.95, 0.2, 0.2], [0.1, 0.2, 0.3], [0.1, 0.2, 0.9]]
    assert number_of_clicks(ious, 0.9).tolist() == [2, 1, 20, 3]
    assert number_of_clicks(np.array(ious), 0.9, max_clicks=2).tolist() == [2, 1, 2, 2]
    assert number_of_clicks(torch.tensor(ious, dtype=torch.float64), 0.95).dtype == torch.int64
    with pytest.raises(az.InputError, match="images, clicks"):
        number_of_clicks(torch.zeros(3), 0.9)
    with pytest.raises(az.InputError, match="NaN"):
        number_of_clicks([[0.5, math.nan]], 0.9)
    for threshold, most, said in ((math.nan, 20, "threshold"), (1.5, 20, "threshold"), (0.9, 0, "max_clicks")):
        with pytest.raises(az.InputError, match=said):
            number_of_clicks(ious, threshold, most)


def test_sampled_clicks_are_in_the_region_and_different():
    region = torch.zeros(3, 6, 7, dtype=torch.bool)
    region[0, 2:5, 1:4], region[1, 0, 0] = True, True
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(50):
        clicks = sample_clicks(region, POSITIVE, (1, 3), generator)
        made = [
            [tuple(map(int, point)) for point, label in zip(*image, strict=True) if label != PADDING]
            for image in zip(clicks.points.tolist(), clicks.labels.tolist(), strict=True)
        ]
        assert all(region[0, y, x] for y, x in made[0])
        assert len(set(made[0])) == len(made[0])
        assert made[1] == [(0, 0)]
        assert made[2] == []
        seen.add(len(made[0]))
    assert seen == {1, 2, 3}


def test_corrections_are_of_both_kinds():
    missed = torch.zeros(1, 5, 5, dtype=torch.bool)
    false = missed.clone()
    missed[0, 0], false[0, 4] = True, True
    clicks = sample_corrections(missed, false, (2, 2), (1, 1))
    kinds = [
        (int(y), label) for (y, _), label in zip(clicks.points[0].tolist(), clicks.labels[0].tolist(), strict=True)
    ]
    assert kinds == [(0, POSITIVE), (0, POSITIVE), (4, NEGATIVE)]


def test_deep_clicks_are_in_the_inner_half_of_the_deeper_errors():
    missed, false = torch.zeros(2, 3, 20, 24, dtype=torch.bool).unbind(0)
    missed[0, 2:13, 4:15] = True  # 11 x 11: 6 deep, so that the inner half is 5 x 5
    false[0, 0:4] = True
    false[1, 10:17, 5:12] = True
    for seed in range(20):
        clicks = sample_deep(missed, false, torch.Generator().manual_seed(seed))
        assert clicks.labels[:, 0].tolist() == [POSITIVE, NEGATIVE, PADDING]
        assert (clicks.points[0, 0] - torch.tensor([7.0, 9])).abs().max() <= 2
        assert (clicks.points[1, 0] - torch.tensor([13.0, 8])).abs().max() <= 1
    places = {tuple(sample_deep(missed, false).points[0, 0].tolist()) for _ in range(40)}
    assert len(places) > 5
