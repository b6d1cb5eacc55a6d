"""Clicks and the image channels they become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention_zoo as az
from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE, Clicks
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
