"""Intersection over union of classes, accumulated over a whole set."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from attention_zoo.errors import InputError
from attention_zoo.scales import PROPORTION, Scale


class MeanIoU(MulticlassConfusionMatrix):
    """Mean IoU over the classes that occur, IoU of each class and accuracies; pixels are counted over the whole set.

    As in mmsegmentation, intersections and unions are summed over all images before they are divided, and a class that
    is neither labelled nor predicted is left out of the mean. Counts of several processes add up exactly.

    Args:
        num_classes: number of classes, C.
        ignore_index: label of pixels that count nowhere.
        **metric: further arguments of the torchmetrics class.
    """

    SCALES: ClassVar[Mapping[str, Scale]] = dict.fromkeys(
        ("mean_iou", "pixel_accuracy", "mean_accuracy", "iou/*"), PROPORTION
    )
    """The `Scale` of each of its numbers, for the task that logs them one by one."""

    def __init__(self, num_classes: int, ignore_index: int = 255, **metric: Any) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False, **metric)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # the matrix is only what the means are made of
        """Return ``mean_iou``, ``pixel_accuracy``, ``mean_accuracy`` and ``iou`` (C,), NaN where a class is absent.

        Raises:
            InputError: no pixel was counted.
        """
        counts = super().compute().double()
        if not counts.any():
            raise InputError("no pixel has a label that counts, so that there is no mean IoU")
        hits, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou, accuracy = hits / (labelled + predicted - hits), hits / labelled
        return {
            "mean_iou": torch.nanmean(iou).float(),
            "pixel_accuracy": (hits.sum() / labelled.sum()).float(),
            "mean_accuracy": torch.nanmean(accuracy).float(),
            "iou": iou.float(),
        }
