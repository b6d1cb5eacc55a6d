"""Mean corruption error, counted over images under corruptions at severities."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention_zoo.corruption_error import mean_corruption_error
from tasks.metrics.subset import SubsetAccuracy


class MeanCorruptionError(SubsetAccuracy):
    """Mean corruption error in percent, over corruptions and severities.

    Args:
        corruptions: names of the corruptions.
        severities: number of severities of each.
        normalised: divide by AlexNet's errors, which are of ImageNet-C at its five severities; else the plain mean.
        **subset: as for SubsetAccuracy; ``cells`` are corruptions x severities, severity last.
    """

    higher_is_better = False
    plot_upper_bound = None

    def __init__(self, corruptions: Sequence[str], severities: int = 5, *, normalised: bool, **subset: Any) -> None:
        super().__init__(cells=len(corruptions) * severities, **subset)
        self.corruptions, self.severities, self.normalised = tuple(corruptions), severities, normalised

    def compute(self) -> Tensor:
        """Return the mean corruption error, a scalar in percent; NaN while a cell is empty."""
        errors = (1 - self.correct.double() / self.total).view(len(self.corruptions), self.severities).mean(1)
        by_name = dict(zip(self.corruptions, errors.tolist(), strict=True))
        return torch.tensor(mean_corruption_error(by_name, normalised=self.normalised), dtype=torch.float64)
