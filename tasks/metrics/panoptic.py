"""Panoptic quality as panopticapi counts it, with crowds."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from attention_zoo.errors import InputError

VOID = -1
"""Category of target pixels that do not count."""

CROWD = -1
"""Segment number of target pixels that belong to a crowd of their category."""

STATES = ("iou_sum", "true_positives", "false_positives", "false_negatives")


class ExactPanopticQuality(Metric):
    """PQ, SQ and RQ, means over the classes that occur in prediction or target: a tensor of three.

    A predicted and a labelled segment of one class match where their IoU is above 1/2. Pixels without a label are taken
    out of the union, those of crowds stay in it. A predicted segment without a match is no error where pixels without a
    label and crowds of its own class are more than half of it. Crowds are never missed.

    A. Kirillov et al., Panoptic Segmentation, CVPR 2019, and panopticapi's ``pq_compute``; torchmetrics'
    ``PanopticQuality`` knows no crowds, and takes pixels without a prediction out of the union. Where an image has
    several crowds of one class, panopticapi looks at one of them; here all are one.

    ``update`` takes predictions and targets (B, H, W, 2) int64, class and segment of each pixel, as
    `panoptic_segments` and `panoptic_target` give them: class C where there is no prediction, `VOID` where a target
    counts nowhere, segment `CROWD` in crowds. Of classes that are no things all pixels of a class are one segment.

    Args:
        num_classes: number of classes, C.
        things: classes whose segments are told apart.
        **metric: arguments of torchmetrics' ``Metric``.
    """

    things: Tensor
    iou_sum: Tensor
    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, num_classes: int, things: Collection[int], **metric: Any) -> None:
        super().__init__(**metric)
        self.num_classes = num_classes
        self.register_buffer("things", torch.tensor(sorted(things), dtype=torch.int64), persistent=False)
        for name in STATES:
            kind = torch.float64 if name == "iou_sum" else torch.int64
            self.add_state(name, torch.zeros(num_classes, dtype=kind), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Count the segments of a batch of images; see the class.

        Raises:
            InputError: a class is none of the C, nor C in a prediction or `VOID` in a target.
        """
        for name, maps, more in (("predicted", predicted, self.num_classes), ("target", target, VOID)):
            classes = maps[..., 0]
            foreign = ((classes < 0) | (classes >= self.num_classes)) & (classes != more)
            if foreign.any():
                raise InputError(f"{name}: {int(classes[foreign][0])} is none of {self.num_classes} classes")
        for one, truth in zip(predicted, target, strict=True):
            self._count(one.flatten(0, 1), truth.flatten(0, 1))

    def compute(self) -> Tensor:
        """Return PQ, SQ and RQ (3,) float32; zeros before anything was counted."""
        overlap, true, false, missed = (getattr(self, name) for name in STATES)
        counted = true + false / 2 + missed / 2
        segmentation = torch.where(true > 0, overlap / true, 0.0)
        recognition = torch.where(counted > 0, true / counted, 0.0)
        each = torch.stack([segmentation * recognition, segmentation, recognition])[:, counted > 0]
        return (each.sum(1) / max(each.shape[1], 1)).float()

    def _count(self, predicted: Tensor, target: Tensor) -> None:
        """Count one image, whose maps of class and segment are (pixels, 2)."""
        segments, inside = self._segments(predicted)
        labelled, truth = self._segments(target)
        shared = (inside * len(labelled) + truth).bincount(minlength=len(segments) * len(labelled))
        shared = shared.view(len(segments), len(labelled))  # pixels of each pair
        void, crowd = labelled[:, 0] == VOID, labelled[:, 1] == CROWD
        unlabelled = shared[:, void].sum(1)
        union = shared.sum(1)[:, None] + shared.sum(0) - shared - unlabelled[:, None]
        same = segments[:, :1] == labelled[:, 0]
        match = same & ~crowd & (2 * shared > union)
        excused = 2 * (unlabelled + (shared * (same & crowd)).sum(1)) > shared.sum(1)
        real = segments[:, 0] < self.num_classes
        of = segments[match.any(1), 0]
        self.iou_sum.index_add_(0, of, (shared / union.clamp(min=1)).double()[match])
        self._add("true_positives", of)
        self._add("false_positives", segments[real & ~match.any(1) & ~excused, 0])
        self._add("false_negatives", labelled[~void & ~crowd & ~match.any(0), 0])

    def _segments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the segments (n, 2) of a map (pixels, 2), and the index (pixels,) int64 of each pixel's segment."""
        classes, numbers = pixels.unbind(1)
        crowd = (numbers == CROWD) | (classes == VOID)
        numbers = torch.where(crowd, CROWD, torch.where(torch.isin(classes, self.things), numbers, 0))
        base = int(numbers.max()) + 2  # one code for both, as finding the different rows of a matrix takes far longer
        codes, inside = (classes * base + numbers - CROWD).unique(return_inverse=True)
        classes = codes.div(base, rounding_mode="floor")
        return torch.stack([classes, codes - classes * base + CROWD], 1), inside

    def _add(self, name: str, classes: Tensor) -> None:
        setattr(self, name, getattr(self, name) + classes.bincount(minlength=self.num_classes))


def panoptic_target(segments: dict[str, Tensor]) -> Tensor:
    """Return the segments of an image as one map (H, W, 2) int64 of class and segment; class `VOID` where none is.

    Pixels of a crowd have its class and the segment `CROWD`; where another segment lies on it, they are of that.

    Args:
        segments: ``masks`` (n, H, W) bool, ``labels`` (n,) int64 and perhaps ``crowd`` (n,) bool.
    """
    masks, labels = segments["masks"], segments["labels"]
    target = labels.new_full((*masks.shape[1:], 2), VOID)
    crowd = segments.get("crowd", torch.zeros_like(labels, dtype=torch.bool))
    for mask, label in zip(masks[crowd], labels[crowd].tolist(), strict=True):
        target[mask] = target.new_tensor([label, CROWD])
    for number, (mask, label) in enumerate(zip(masks[~crowd], labels[~crowd].tolist(), strict=True), start=1):
        target[mask] = target.new_tensor([label, number])
    return target
