"""Clicks and the image channels they become."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention_zoo as az
from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE, Box, Click, ClickedImage, Clicks
from attention_zoo.models.interactive import box_disks, disks

SIZE = (20, 30)


def naive_disks(clicks, size, radius):
    planes = torch.zeros(clicks.batch_size, 2, *size)
    rows, columns = torch.meshgrid(*map(torch.arange, size), indexing="ij")
    for image in range(clicks.batch_size):
        for (y, x), label in zip(clicks.points[image].tolist(), clicks.labels[image].tolist(), strict=True):
            if label != PADDING:
                near = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
                planes[image, 0 if label == POSITIVE else 1][near] = 1
    return planes


@settings(deadline=None, max_examples=30)
@given(
    radius=st.sampled_from([1, 2, 5, 8]),
    points=st.lists(st.tuples(st.integers(-3, 45), st.integers(-3, 65), st.sampled_from([1, 0, -1])), max_size=6),
)
def test_disks_are_the_pixels_near_a_click(radius, points):
    halves = torch.tensor([[point[:2] for point in points]], dtype=torch.float32).view(1, -1, 2) / 2
    clicks = Clicks(halves, torch.tensor([[point[2] for point in points]], dtype=torch.int64).view(1, -1))
    torch.testing.assert_close(disks(clicks, SIZE, radius), naive_disks(clicks, SIZE, radius))


def test_radius_zero_is_the_clicked_pixel():
    clicks = Clicks.empty(2).append(torch.tensor([[3, 4], [5.4, 6.6]]), torch.tensor([POSITIVE, NEGATIVE]))
    assert disks(clicks, SIZE, 0).nonzero().tolist() == [[0, 0, 3, 4], [1, 1, 5, 7]]


def test_a_box_is_two_disks():
    planes = box_disks(torch.tensor([[2.0, 3, 15, 25], [15, 3, 2, 25]]), SIZE, 1)
    assert planes.shape == (2, 1, *SIZE)
    assert planes.sum((1, 2, 3)).tolist() == [10, 10]
    assert planes[0, 0, 2, 3] == planes[0, 0, 15, 25] == planes[1, 0, 15, 3] == planes[1, 0, 2, 25] == 1


def test_a_box_that_was_not_given_is_no_disk():
    planes = box_disks(torch.tensor([[2.0, 3, 15, 25], [math.nan] * 4]), SIZE, 1)
    assert planes.sum((1, 2, 3)).tolist() == [10, 0]
    with pytest.raises(az.InputError, match="nowhere"):
        box_disks(torch.tensor([[2.0, 3, math.inf, 25]]), SIZE, 1)


def test_flipped_clicks_are_the_mirror_images():
    clicks = Clicks(torch.tensor([[[2.0, 3], [19, 29]]]), torch.tensor([[1, 0]]))
    torch.testing.assert_close(disks(clicks.flip(30), SIZE, 3), disks(clicks, SIZE, 3).flip(-1))
    torch.testing.assert_close(clicks.flip(30).flip(30).points, clicks.points)


def test_batches_of_different_lengths_are_padded():
    one = Clicks.empty(1).append(torch.tensor([[4.0, 5]]), torch.tensor([1]))
    both = one.cat(Clicks.empty(2))
    assert both.labels.tolist() == [[1], [-1], [-1]]
    assert disks(both, SIZE, 2)[1:].sum() == 0
    torch.testing.assert_close(disks(both[:1], SIZE, 2), disks(one, SIZE, 2))


def test_clicks_move_with_a_crop_that_is_resized():
    clicks = Clicks(torch.tensor([[[12.0, 8]]]), torch.tensor([[1]]))
    assert clicks.moved(torch.tensor([10.0, 4]), torch.tensor([2.0, 3])).points.tolist() == [[[4, 12]]]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(az.InputError, match=r"points \(B, n, 2\)"):
        Clicks(torch.zeros(1, 2, 2), torch.zeros(1, 3, dtype=torch.int64))


NOWHERE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", NOWHERE)
def test_clicks_that_are_nowhere_are_refused(bad):
    with pytest.raises(az.InputError, match="nowhere"):
        Clicks(torch.tensor([[[3.0, bad]]]), torch.tensor([[POSITIVE]]))
    with pytest.raises(az.InputError, match="nowhere"):
        Clicks.empty(1).append(torch.tensor([[bad, 3.0]]), torch.tensor([PADDING]))


def test_labels_are_one_of_three():
    with pytest.raises(az.InputError, match="got 2"):
        Clicks(torch.zeros(1, 2, 2), torch.tensor([[1, 2]]))


def test_clicks_are_checked_against_the_image():
    size = (20, 30)
    Clicks(torch.tensor([[[19.0, 29.0], [-9.0, 99.0]]]), torch.tensor([[1, PADDING]])).check_inside(size)
    for y, x in ((-1.0, 3.0), (20.0, 3.0), (3.0, 30.0), (3.0, -0.6)):
        with pytest.raises(az.InputError, match="outside the image of 30 x 20"):
            Clicks(torch.tensor([[[y, x]]]), torch.tensor([[0]])).check_inside(size)


def test_clicks_are_built_where_values_cannot_be_looked_at():
    points, labels = torch.zeros(1, 2, 2, device="meta"), torch.zeros(1, 2, dtype=torch.int64, device="meta")
    assert Clicks(points, labels).count == 2
    compiled = torch.compile(lambda p, n: Clicks(p, n).flip(9).points, fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1, 2, 2), torch.zeros(1, 2, dtype=torch.int64))[0, 0].tolist() == [0, 8]


def test_a_click_is_a_plain_tuple_that_was_checked():
    click = Click(3, 4.5, True)
    assert click == (3, 4.5, True) == pickle.loads(pickle.dumps(click)) == Click.parse(dict(y=3, x=4.5, positive=True))


good = st.one_of(st.integers(0, 19), st.floats(0, 19))
places = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.sampled_from([10**400, -(10**400), None, "3", True, [3], {}, -0.001, 1e20]),
)


def is_place(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**24


@settings(deadline=None, max_examples=150)
@given(y=st.one_of(good, places), x=st.one_of(good, places), positive=st.sampled_from([True, False, None, 1, "true"]))
def test_a_click_in_a_file_is_right_or_refused(y, x, positive):
    entry = {"image": "a.png", "clicks": [{"y": y, "x": x, "positive": positive}]}
    if is_place(y) and is_place(x) and isinstance(positive, bool):
        image = ClickedImage.parse(entry)
        assert image.clicks == ((y, x, positive),)
        assert image.points.isfinite().all()
        if round(y) >= 20 or round(x) >= 30:
            with pytest.raises(az.InputError, match="outside the image of 30 x 20"):
                image.check_inside((20, 30))
        else:
            image.check_inside((20, 30))
    else:
        with pytest.raises(az.InputError, match="click") as refusal:
            ClickedImage.parse(entry)
        assert len(str(refusal.value)) < 200 and "\n" not in str(refusal.value)


@settings(deadline=None, max_examples=150)
@given(box=st.one_of(st.lists(st.one_of(good, places), min_size=3, max_size=5), places))
def test_a_box_in_a_file_is_right_or_refused(box):
    entry = {"image": "a.png", "clicks": [], "box": box}
    if isinstance(box, list) and len(box) == 4 and all(map(is_place, box)):
        image = ClickedImage.parse(entry)
        assert image.box == tuple(box)
        assert image.corners.isfinite().all()
        if max(box[::2]) > 20 or max(box[1::2]) > 30:
            with pytest.raises(az.InputError, match="outside the image of 30 x 20"):
                image.check_inside((20, 30))
    else:
        with pytest.raises(az.InputError, match="box") as refusal:
            ClickedImage.parse(entry)
        assert len(str(refusal.value)) < 250 and "\n" not in str(refusal.value)


def test_an_entry_of_a_file_is_written_as_it_is_read():
    entry = {
        "image": "a.png",
        "clicks": [{"y": 2, "x": 3.5, "positive": False}],
        "box": [1, 2, 3, 4],
        "mask": {"size": [2, 3], "counts": [1, 2, 3]},
        "setting": {"key_adaptation": 1},
        "threshold": 0.25,
    }
    assert ClickedImage.parse(entry).plain() == entry
    few = {"image": "a.png", "clicks": [], "box": [1, 2, 3, 4]}
    assert ClickedImage.parse(few).plain() == few
    with pytest.raises(az.InputError, match="a mask of 3 x 2 pixels for an image of 30 x 20"):
        ClickedImage.parse({**few, "mask": entry["mask"]}).check_inside((20, 30))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image": "a.png", "box": [1, 2, 3, 4], "threshold": 1}, "threshold=1 must be at least 0 and below 1"),
        ({"image": "a.png", "box": [1, 2, 3, 4], "threshold": math.nan}, "threshold=nan must be"),
        ({"image": "a.png", "box": [1, 2, 3, 4], "setting": [1]}, "setting must be options by name"),
        ({"image": "a.png", "mask": {"size": [2, 3], "counts": [7]}}, "3 x 2 pixels have 7 pixels"),
        ([], "no image"),
        ({"image": 3}, "no image"),
        ({"image": "a.png"}, "neither clicks nor a box"),
        ({"image": "a.png", "clicks": [], "box": None}, "neither clicks nor a box"),
        ({"image": "a.png", "clicks": {"y": 1}}, "clicks must be a list"),
        ({"image": "a.png", "clicks": [[1, 2, True]]}, "a click is"),
        ({"image": "a.png", "clicks": [{"y": 1, "x": 2, "positive": True, "z": 3}]}, "a click is"),
        ({"image": "a.png", "clicks": [{"y": 1, "x": 2}]}, "a click is"),
        ({"image": "a.png", "boxes": []}, "unknown key 'boxes'; did you mean 'box'"),
        ({"image": "a.png", 3: []}, "unknown key '3'"),
    ],
)
def test_entries_that_are_none(entry, said):
    with pytest.raises(az.InputError, match=said):
        ClickedImage.parse(entry)


def test_a_box_without_an_area_is_a_place_still():
    assert ClickedImage("a.png", box=Box(5, 5, 5, 5)).corners.tolist() == [5, 5, 5, 5]
