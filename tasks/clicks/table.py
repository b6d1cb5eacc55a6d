"""A metric that keeps the IoU of every object after every click, exact over processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ClickTable(Metric):
    """IoU of every sample of a split before the first click and after each, under several settings.

    Args:
        settings: number of settings.
        samples: number of samples of the split.
        clicks: number of clicks for each sample.

    Attributes:
        ious: (settings, samples, clicks + 1) float64.
        counted: (settings, samples) int64, 1 where a sample was counted.
        seconds: (settings,) float64, time that the model and the simulated annotator took, all processes together.
        made: (settings,) int64, number of clicks that were made.
    """

    full_state_update = False

    ious: Tensor
    counted: Tensor
    seconds: Tensor
    made: Tensor

    def __init__(self, settings: int, samples: int, clicks: int) -> None:
        super().__init__()
        exact: dict[str, Any] = {"dist_reduce_fx": "sum"}  # every row is filled by one process, and zero in the others
        self.add_state("ious", torch.zeros(settings, samples, clicks + 1, dtype=torch.float64), **exact)
        self.add_state("counted", torch.zeros(settings, samples, dtype=torch.int64), **exact)
        self.add_state("seconds", torch.zeros(settings, dtype=torch.float64), **exact)
        self.add_state("made", torch.zeros(settings, dtype=torch.int64), **exact)

    def update(self, setting: int, index: Tensor, ious: Tensor, numbers: Tensor, seconds: float) -> None:
        """Count a batch of samples under one setting.

        Args:
            setting: position of the setting.
            index: (B,) int64, the samples; -1 counts nowhere.
            ious: (B, clicks + 1), IoU before the first click and after each.
            numbers: (B,) int64, number of clicks on each.
            seconds: time that the batch took.
        """
        counts = (index >= 0).to(self.counted.device)
        places = index.to(self.counted.device)[counts]
        self.ious[setting, places] = ious.to(self.ious)[counts]
        self.counted[setting, places] = 1
        self.seconds[setting] += seconds
        self.made[setting] += int(numbers.to(counts.device)[counts].sum())

    def compute(self) -> dict[str, Tensor]:
        """Return all states by name; torchmetrics makes scalars of those with one entry, which `states` undoes."""
        return {name: getattr(self, name) for name in ("ious", "counted", "seconds", "made")}

    def states(self) -> dict[str, Tensor]:
        """Return what all processes counted, by name, on the CPU and in the shapes of the attributes."""
        return {name: value.cpu().view(getattr(self, name).shape) for name, value in self.compute().items()}
