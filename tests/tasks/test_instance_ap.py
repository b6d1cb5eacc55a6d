"""Average precision of instances, on scenes small enough to count by hand, and in the task."""

import pytest
import torch

from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder import PanopticThresholds, instance_masks, panoptic_segments
from tasks.metrics.instances import InstanceAP, instance_target
from tests.tasks.test_mask_segmentation import data, task, trainer


def row(*pixels, width=20):
    mask = torch.zeros(1, width, dtype=torch.bool)
    mask[0, list(pixels)] = True
    return mask


def found(*instances):
    masks, labels, scores = zip(*instances, strict=True)
    return {"masks": torch.stack(masks), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def precision(predicted, masks, labels, crowd=None):
    segments = {"masks": torch.stack(masks), "labels": torch.tensor(labels)}
    segments |= {} if crowd is None else {"crowd": torch.tensor(crowd)}
    metric = InstanceAP()
    metric.update([predicted], [instance_target(segments, [0, 1])])
    values = metric.compute()
    return values["instance_ap"].item(), values["instance_ap50"].item()


def test_what_is_right_is_one():
    masks = [row(*range(5)), row(*range(5, 12)), row(*range(12, 20))]
    predicted = found((masks[0], 0, 0.9), (masks[1], 0, 0.8), (masks[2], 1, 0.1))
    assert precision(predicted, masks, [0, 0, 1]) == pytest.approx((1, 1))


def test_a_mask_counts_up_to_its_iou():
    # 7 of 10 pixels: right at the thresholds 0.5, 0.55, 0.6, 0.65 and 0.7 of ten
    assert precision(found((row(*range(7)), 0, 0.9)), [row(*range(10))], [0]) == pytest.approx((0.5, 1))


def test_a_wrong_one_costs_where_it_is_surer():
    truth, elsewhere = row(*range(10)), row(*range(10, 20))
    assert precision(found((truth, 0, 0.9), (elsewhere, 0, 0.8)), [truth], [0]) == pytest.approx((1, 1))
    assert precision(found((truth, 0, 0.8), (elsewhere, 0, 0.9)), [truth], [0]) == pytest.approx((0.5, 0.5))


def test_crowds_excuse_and_stuff_is_left_out():
    truth, crowd, stuff = row(*range(5)), row(*range(5, 15)), row(*range(15, 20))
    predicted = found((row(*range(5, 9)), 0, 0.9), (truth, 0, 0.8))
    assert precision(predicted, [truth, crowd, stuff], [0, 0, 2], [False, True, False]) == pytest.approx((1, 1))
    assert precision(predicted, [truth, crowd, stuff], [0, 0, 2])[0] < 1


def test_nothing_found_is_zero_and_nothing_labelled_is_no_score():
    empty = {
        "masks": torch.zeros(0, 1, 20, dtype=torch.bool),
        "labels": torch.zeros(0).long(),
        "scores": torch.zeros(0),
    }
    assert precision(empty, [row(0)], [1]) == (0, 0)
    with pytest.raises(InputError, match="no instance of a thing has a label"):
        precision(empty, [row(0)], [2])


def test_queries_are_instances_with_the_panoptic_score():
    classes = torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 9, 0], [4, 0, 0, 0]])
    masks = torch.full((4, 1, 6), -9.0)
    masks[0, 0, :2], masks[1, 0, 2:4], masks[2, 0, 4:] = 2.0, 1.0, 3.0  # the last query has no pixel
    instances = instance_masks(classes, masks, things=[0, 1])
    assert instances["labels"].tolist() == [0, 1]  # the third is stuff
    assert instances["masks"].nonzero()[:, 0].bincount().tolist() == [2, 2]
    sure, mean = classes.softmax(1)[:2, :-1].max(1).values, masks.softmax(0).max(0).values[0, [0, 2]]
    torch.testing.assert_close(instances["scores"], sure * mean)
    flat = instance_masks(classes, masks, [0, 1], PanopticThresholds(mask_exponent=0.0))
    torch.testing.assert_close(flat["scores"], sure)
    # query 1 is too unsure for a segment, and counts as an instance all the same
    assert set(panoptic_segments(classes, masks, [0, 1])[..., 0].unique().tolist()) == {0, 2, 3}


def test_the_task_measures_it_if_asked():
    scenes = data(panoptic=True)
    (values,) = trainer().test(task(things=scenes.things, instance_ap=True), scenes, verbose=False)
    assert 0 <= values["test/instance_ap"] <= values["test/instance_ap50"] <= 1
    with pytest.raises(InputError, match="instance_ap=True needs things"):
        task(instance_ap=True)


def test_a_sample_that_pads_a_process_is_no_instance():
    scenes = data(panoptic=True)
    scenes.setup("validate")
    batch = next(iter(scenes.val_dataloader()))
    model = task(things=scenes.things, instance_ap=True).eval()
    model.validation_step({**batch, "index": torch.tensor([0, -1])}, 0)
    assert len(model.val_metrics["instances"].groundtruth_labels) == 1
