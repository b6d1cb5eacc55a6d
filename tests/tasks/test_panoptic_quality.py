"""Panoptic quality on scenes small enough to count by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention_zoo as az
from tasks.metrics.panoptic import CROWD, VOID, ExactPanopticQuality, panoptic_target

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
    assert crowd[0].tolist() == [[2, CROWD], [2, CROWD], [0, 1], [VOID, VOID]]


def crowded(pixels, label, crowd, ends=14):
    """A target with a segment of class 0 on the first ``pixels`` and a crowd of ``crowd`` up to ``ends``."""
    masks = torch.zeros(2, 1, 14, dtype=torch.bool)
    masks[0, 0, :pixels] = True
    masks[1, 0, pixels:ends] = True
    segments = {"masks": masks, "labels": torch.tensor([label, crowd]), "crowd": torch.tensor([False, True])}
    return panoptic_target(segments)[0].tolist()


def test_crowds_stay_in_the_union():
    assert quality([(0, 1)] * 14, crowded(10, 0, 0)) == pytest.approx([10 / 14, 10 / 14, 1])
    assert quality([(0, 1)] * 14, crowded(10, 0, 1)) == pytest.approx([10 / 14, 10 / 14, 1])
    assert quality([(0, 1)] * 14, crowded(10, 0, 1, ends=12)) == pytest.approx([10 / 12, 10 / 12, 1])


def test_a_crowd_excuses_its_own_class_only():
    found = [(0, 1)] * 10 + [(1, 2)] * 4
    assert quality(found, crowded(10, 0, 0)) == pytest.approx([0.5, 0.5, 0.5])
    assert quality(found, crowded(10, 0, 1)) == pytest.approx([1, 1, 1])
    assert quality(found, crowded(10, 0, 1, ends=12)) == pytest.approx([1, 1, 1])  # half of it crowd, half unlabelled
    assert quality([(0, 1)] * 8 + [(1, 2)] * 6, crowded(10, 0, 1)) == pytest.approx([0.8, 0.8, 1])
    assert quality([(0, 1)] * 6 + [(1, 2)] * 8, crowded(10, 0, 1))[0] == pytest.approx(0.3)  # exactly half


def test_a_missed_crowd_is_no_error():
    assert quality([(0, 1)] * 10 + [NOTHING] * 4, crowded(10, 0, 1)) == pytest.approx([1, 1, 1])


def test_classes_that_do_not_exist():
    with pytest.raises(az.InputError, match="target: 3 is none of 3 classes"):
        quality([(0, 1)], [(3, 1)])
    with pytest.raises(az.InputError, match="predicted: -1 is none"):
        quality([(VOID, 1)], [(0, 1)])


def as_panopticapi(predicted, target):
    """PQ, SQ and RQ, by the loops of panopticapi's ``pq_compute_single_core`` over the segments of one image."""
    pairs = list(zip(predicted, target, strict=True))
    area = lambda wanted: sum(pair == wanted for pair in pairs)  # noqa: E731
    found = {segment: predicted.count(segment) for segment in set(predicted) if segment[0] != 3}
    known = {segment: target.count(segment) for segment in set(target) if segment[0] != VOID}
    counts = {label: {"iou": 0.0, "tp": 0, "fp": 0, "fn": 0} for label in range(3)}
    matched = set()
    for truth, size in known.items():
        for segment, pixels in found.items():
            if truth[1] == CROWD or truth[0] != segment[0]:
                continue
            shared = area((segment, truth))
            iou = shared / (pixels + size - shared - area((segment, (VOID, VOID))))
            if iou > 0.5:
                counts[truth[0]]["iou"] += iou
                counts[truth[0]]["tp"] += 1
                matched |= {truth, segment + ("predicted",)}
        counts[truth[0]]["fn"] += truth not in matched and truth[1] != CROWD
    for segment, pixels in found.items():
        excuse = area((segment, (VOID, VOID))) + area((segment, (segment[0], CROWD)))
        counts[segment[0]]["fp"] += segment + ("predicted",) not in matched and excuse / pixels <= 0.5
    each = []
    for one in counts.values():
        if one["tp"] + one["fp"] + one["fn"]:
            recognised = one["tp"] / (one["tp"] + 0.5 * one["fp"] + 0.5 * one["fn"])
            segmented = one["iou"] / one["tp"] if one["tp"] else 0
            each.append((segmented * recognised, segmented, recognised))
    return [sum(values) / len(each) for values in zip(*each, strict=True)] if each else [0, 0, 0]


SEGMENTS = [(0, 1), (0, 2), (1, 3), (2, 0)]
PREDICTED = st.sampled_from([*SEGMENTS, NOTHING])
TARGET = st.sampled_from([*SEGMENTS, (0, CROWD), (1, CROWD), (2, CROWD), (VOID, VOID)])


@settings(max_examples=150, deadline=None)
@given(runs=st.lists(st.tuples(PREDICTED, TARGET, st.integers(1, 5)), min_size=1, max_size=8))
def test_as_panopticapi_counts(runs):
    predicted = [segment for segment, _, pixels in runs for _ in range(pixels)]
    target = [truth for _, truth, pixels in runs for _ in range(pixels)]
    assert quality(predicted, target) == pytest.approx(as_panopticapi(predicted, target))
