"""The expected calibration error, counted in bounded memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from tasks.metrics.subset import ClassSubset


class CalibrationError(Metric):
    """Expected calibration error of the most probable class, in each of ``cells``.

    The mean over images of |accuracy - mean confidence| of the bin that the image's confidence falls into (C. Guo et
    al., On Calibration of Modern Neural Networks, ICML 2017). A bin holds its lower edge and not its upper, the last
    bin both. torchmetrics' ``MulticlassCalibrationError`` keeps every confidence, here only the sums of each bin are
    kept; it is the same number unless a confidence is exactly 1, which torchmetrics puts into a bin of its own, beyond
    the last.

    Args:
        classes: the outputs that compete, ascending; None is all.
        cells: parts that are measured on their own.
        bins: number of bins, of equal width.
        **metric: arguments of torchmetrics' Metric.
    """

    edges: Tensor
    count: Tensor
    surplus: Tensor
    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(self, classes: Sequence[int] | None = None, cells: int = 1, bins: int = 15, **metric: Any) -> None:
        super().__init__(**metric)
        self.subset = ClassSubset(classes)
        self.register_buffer("edges", torch.linspace(0, 1, bins + 1)[1:-1], persistent=False)
        self.add_state("count", torch.zeros(cells, bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("surplus", torch.zeros(cells, bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, cell: Tensor | None = None) -> None:
        """Count the images of a batch in their cells; arguments and errors are those of `SubsetAccuracy.update`."""
        logits, label = self.subset(logits, label)
        confidence, best = logits.float().softmax(1).max(1)
        place = torch.bucketize(confidence, self.edges, right=True)
        if cell is not None:
            place = place + cell * self.count.shape[1]
        self.count.view(-1).index_add_(0, place, torch.ones_like(place))
        surplus = confidence.double() - (best == label).double()
        self.surplus.view(-1).index_add_(0, place, surplus)

    def compute(self) -> Tensor:
        """Return the error of each cell (cells,) in 0..1; NaN where nothing was counted. Without cells a scalar."""
        return (self.surplus.abs().sum(1) / self.count.sum(1)).squeeze()
