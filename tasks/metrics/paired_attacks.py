"""Counts of what two attacks do to the same images."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class PairCount(Metric):
    """Images that two attacks made, and those that withstand one of them alone.

    Args:
        **metric: arguments of torchmetrics' Metric.

    Attributes:
        counts: (3,) int64: images, those that withstand the first alone, those that withstand the second alone.
    """

    counts: Tensor
    higher_is_better: bool | None = None
    is_differentiable = False
    full_state_update = False

    def __init__(self, **metric: Any) -> None:
        super().__init__(**metric)
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, first: Tensor, second: Tensor) -> None:
        """Count the images of a batch: whether each withstands the first and the second attack, (N,) bool."""
        alone = ((first & ~second).sum(), (second & ~first).sum())
        self.counts += torch.stack((torch.full_like(alone[0], len(first)), *alone))

    def compute(self) -> Tensor:
        """Return the counts, (3,) int64."""
        return self.counts
