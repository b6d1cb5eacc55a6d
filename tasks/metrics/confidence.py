"""The confidence of every answer, exact over processes."""

import torch
from torch import Tensor
from torchmetrics import Metric

from attention_zoo.functional.checks import check_finite


class ConfidenceRecords(Metric):
    """The confidence of a classifier's answer to each image of a cell, and whether the answer is right.

    Args:
        images: the number of images.
    """

    confidence: Tensor
    right: Tensor
    counted: Tensor
    full_state_update = False

    def __init__(self, images: int) -> None:
        super().__init__()
        self.add_state("confidence", torch.zeros(images, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("right", "counted"):
            self.add_state(name, torch.zeros(images, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, number: Tensor) -> None:
        """Record the answers to some images.

        Args:
            logits: (N, C).
            label: (N,) int64.
            number: (N,) int64, the place of each image in its cell.

        Raises:
            InputError: a logit is not finite.
        """
        check_finite("logits", logits, number)
        confidence, answer = logits.double().softmax(1).max(1)
        self.confidence[number] = confidence
        self.right[number] = (answer == label).long()
        self.counted[number] = 1

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return confidences (n,) float64, and whether the answers are right (n,) bool, of the images recorded."""
        there = self.counted > 0
        return self.confidence[there], self.right[there] > 0
