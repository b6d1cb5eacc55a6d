"""Panoptic quality on scenes small enough to count by hand."""

import pytest
import torch

from tasks.metrics.panoptic import VOID, ExactPanopticQuality, panoptic_target

NOTHING = (3, 0)  # three classes: 0 and 1 are things, 2 is stuff


def quality(predicted, target):
    metric = ExactPanopticQuality(3, things=[0, 1])
    metric.update(torch.tensor([[predicted]]), torch.tensor([[target]]))
    return metric.compute().tolist()


def test_equal_maps():
    scene = [(0, 1), (0, 1), (0, 2), (2, 3)]
    renumbered = [(0, 7), (0, 7), (0, 4), (2, 9)]
    assert quality(scene, renumbered) == pytest.approx([1, 1, 1])


def test_by_hand():
    target = [(0, 1)] * 4 + [(2, 2)] * 4
    predicted = [(0, 1)] * 3 + [(2, 2)] * 5
    # thing: 3 of 4; stuff: 4 of 5
    assert quality(predicted, target) == pytest.approx([(3 / 4 + 4 / 5) / 2, (3 / 4 + 4 / 5) / 2, 1])


def test_a_missed_and_an_invented_segment():
    target = [(0, 1)] * 4 + [(0, 2)] * 4 + [(2, 3)] * 4
    predicted = [(0, 1)] * 4 + [(1, 2)] * 4 + [(2, 3)] * 4
    # class 0: one of two found; class 1: one invented; class 2: right
    assert quality(predicted, target) == pytest.approx([(2 / 3 + 0 + 1) / 3, 2 / 3, (2 / 3 + 0 + 1) / 3])


def test_saying_nothing_is_wrong():
    target = [(0, 1)] * 4 + [(2, 2)] * 4
    assert quality([NOTHING] * 8, target) == pytest.approx([0, 0, 0])
    # half of the thing is found: an IoU of 1/2 is no match
    assert quality([(0, 1)] * 2 + [NOTHING] * 2 + [(2, 2)] * 4, target) == pytest.approx([0.5, 0.5, 0.5])
    assert quality([(0, 1)] * 3 + [NOTHING] * 1 + [(2, 2)] * 4, target) == pytest.approx([7 / 8, 7 / 8, 1])


def test_void_pixels_of_the_target_do_not_count():
    target = [(0, 1)] * 4 + [(VOID, VOID)] * 4
    assert quality([(0, 1)] * 8, target) == pytest.approx([1, 1, 1])
    assert quality([(0, 1)] * 4 + [(1, 2)] * 4, target) == pytest.approx([1, 1, 1])
    assert quality([(0, 1)] * 2 + [(1, 2)] * 6, target)[0] == pytest.approx(0)


def test_counts_add_up_over_batches():
    target = torch.tensor([[[(0, 1)] * 4 + [(2, 2)] * 4], [[(0, 1)] * 8]])
    predicted = torch.tensor([[[(0, 1)] * 3 + [(2, 2)] * 5], [[(0, 1)] * 6 + [NOTHING] * 2]])
    one, two = ExactPanopticQuality(3, [0, 1]), ExactPanopticQuality(3, [0, 1])
    one.update(predicted, target)
    for place in range(2):
        two.update(predicted[place : place + 1], target[place : place + 1])
    torch.testing.assert_close(one.compute(), two.compute())
    assert float(one.compute()[0]) == pytest.approx(((3 / 4 + 6 / 8) / 2 + 4 / 5) / 2)


def test_nothing_counted_is_zero():
    assert ExactPanopticQuality(3, [0, 1]).compute().tolist() == [0, 0, 0]


def test_targets_of_segments():
    masks = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 1, 0]]], dtype=torch.bool)
    found = panoptic_target({"masks": masks, "labels": torch.tensor([2, 0])})
    assert found[0].tolist() == [[2, 1], [2, 1], [0, 2], [VOID, VOID]]
    crowd = panoptic_target({"masks": masks, "labels": torch.tensor([2, 0]), "crowd": torch.tensor([True, False])})
    assert crowd[0].tolist() == [[VOID, VOID], [VOID, VOID], [0, 1], [VOID, VOID]]
