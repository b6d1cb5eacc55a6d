"""Panoptic quality as panopticapi counts it, on torchmetrics' implementation."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torchmetrics.detection import PanopticQuality

VOID = -1
"""Category of pixels that count nowhere in a target."""


class ExactPanopticQuality(PanopticQuality):
    """PQ, SQ and RQ, means over the classes that occur in prediction or target: a tensor of three.

    torchmetrics takes pixels without a prediction out of the union, and forgives segments that are mostly without one,
    so that saying nothing costs nothing. Here "nothing" is one more category of the prediction, which counts in no
    mean: its pixels are missed, as in panopticapi.

    ``update`` takes predictions and targets (B, H, W, 2) int64, class and segment of each pixel, as
    `panoptic_segments` and `panoptic_target` give them: class C where there is no prediction, `VOID` where a target
    counts nowhere.

    Args:
        num_classes: C.
        things: classes whose segments are told apart.
        **metric: of torchmetrics' ``Metric``.
    """

    def __init__(self, num_classes: int, things: Collection[int], **metric: Any) -> None:
        stuff = set(range(num_classes)) - set(things)
        super().__init__(things=set(things), stuffs={*stuff, num_classes}, return_sq_and_rq=True, **metric)

    def compute(self) -> Tensor:
        """PQ, SQ, RQ; zeros before anything was counted."""
        # "nothing" is the last of the classes: torchmetrics orders things first, both by number
        found, true, false, missed = (
            x[:-1] for x in (self.iou_sum, self.true_positives, self.false_positives, self.false_negatives)
        )
        counted = true + false / 2 + missed / 2
        segmentation = torch.where(true > 0, found / true, 0.0)
        recognition = torch.where(counted > 0, true / counted, 0.0)
        each = torch.stack([segmentation * recognition, segmentation, recognition])[:, counted > 0]
        return each.sum(1) / max(each.shape[1], 1)


def panoptic_target(segments: dict[str, Tensor]) -> Tensor:
    """The segments of an image as one map (H, W, 2) int64 of class and segment; `VOID` where none is, and in crowds.

    Args:
        segments: ``masks`` (n, H, W) bool, ``labels`` (n,) int64 and perhaps ``crowd`` (n,) bool.
    """
    masks, labels = segments["masks"], segments["labels"]
    target = labels.new_full((*masks.shape[1:], 2), VOID)
    crowd = segments.get("crowd", torch.zeros_like(labels, dtype=torch.bool))
    for number, (mask, label) in enumerate(zip(masks[~crowd], labels[~crowd].tolist(), strict=True), start=1):
        target[mask] = target.new_tensor([label, number])
    return target
