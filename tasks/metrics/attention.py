"""Metrics of attention maps against objects: IoU, false positives and false negatives."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from attention_zoo.errors import InputError
from attention_zoo.scales import Scale


class ForegroundErrors(Metric):
    """Mean over images of foreground IoU, false positives and false negatives, all in percent.

    The report EECS-2024-49 (Table 1.4) does not define FP and FN. Its rows agree with each other if they are shares of
    all pixels, as here. Images in which no pixel counts are left out.
    """

    SCALES: ClassVar[Mapping[str, Scale]] = {
        "iou": Scale("higher", 0.0, 100.0),
        "false_*": Scale("lower", 0.0, 100.0),
    }
    """The `Scale` of each of its numbers, for the task that logs them one by one."""

    iou: Tensor
    false_positives: Tensor
    false_negatives: Tensor
    images: Tensor
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("iou", "false_positives", "false_negatives", "images"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, foreground: Tensor, mask: Tensor) -> None:
        """Count the pixels of a batch of images.

        Args:
            foreground: (B, H, W) bool, predicted.
            mask: (B, H, W), 1 where an object is, 0 where none is; other values count nowhere.
        """
        counts, objects = mask <= 1, mask == 1
        predicted = foreground & counts
        total = counts.sum((1, 2)).double()
        union = (predicted | objects).sum((1, 2)).double()
        # where there is no object, finding none is right
        iou = torch.where(union > 0, (predicted & objects).sum((1, 2)) / union, 1.0)
        seen = total > 0  # an image without a pixel that counts is left out
        self.iou += iou[seen].sum()
        self.false_positives += ((predicted & ~objects).sum((1, 2)) / total.clamp(min=1)).sum()
        self.false_negatives += ((objects & ~predicted).sum((1, 2)) / total.clamp(min=1)).sum()
        self.images += seen.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the means over all images: ``iou``, ``false_positives``, ``false_negatives``.

        Raises:
            InputError: no pixel of any image counts.
        """
        if not self.images:
            raise InputError("no pixel of any mask counts, so that there is nothing to measure")
        names = ("iou", "false_positives", "false_negatives")
        return {name: 100 * getattr(self, name) / self.images for name in names}
