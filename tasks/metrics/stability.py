"""Metrics of ImageNet-P: how a classifier's answers change from frame to frame."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.scales import Scale

TOP = 5
"""The number of classes at the top whose places are compared."""


class Stability(Metric):
    """Flip probability and top-5 distance of sequences, the mean over the sequences of each perturbation.

    For pairs of frames (of noise each with the first, else each with the one ``step`` before) the probability that the
    answer flips, and T5D, the sum over the five best classes of the earlier frame of how many places they move, where
    all places after the fifth are one (D. Hendrycks, T. Dietterich, ICLR 2019, section 4.2, as the authors' code has
    it). The paper divides by AlexNet's numbers, which are not released with the code; here nothing is divided.

    Args:
        perturbations: their number, P.
    """

    SCALES: ClassVar[Mapping[str, Scale]] = {"flip_probability": Scale("lower", 0.0, 1.0), "t5d": Scale("lower", 0.0)}
    """The `Scale` of each of its numbers, in the order in which they are kept."""

    sums: Tensor
    squares: Tensor
    sequences: Tensor
    full_state_update = False

    def __init__(self, perturbations: int) -> None:
        super().__init__()
        for name in ("sums", "squares"):
            empty = torch.zeros(perturbations, len(self.SCALES), dtype=torch.float64)
            self.add_state(name, empty, dist_reduce_fx="sum")
        self.add_state("sequences", torch.zeros(perturbations, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, perturbation: int, step: int | None) -> None:
        """Count one sequence.

        Args:
            logits: (T, C), of its frames in their order.
            perturbation: its place.
            step: how far apart the frames lie that are compared; None compares each with the first.

        Raises:
            InputError: a logit is not finite, or there are too few frames to compare any.
        """
        check_finite("logits", logits)
        least = 1 + (step or 1)
        if len(logits) < least:
            raise InputError(
                f"a sequence of {len(logits)} frames; to compare those {step or 1} apart takes {least} or more"
            )
        order = logits.argsort(dim=1, descending=True, stable=True)
        place = order.argsort(dim=1).clamp(max=TOP)  # of each class in each frame
        if step is None:
            earlier, later = torch.zeros(len(logits) - 1, dtype=torch.int64), torch.arange(1, len(logits))
        else:
            earlier, later = torch.arange(len(logits) - step), torch.arange(step, len(logits))
        flips = (order[earlier, 0] != order[later, 0]).double().mean()
        best = order[earlier, :TOP]
        moved = place[later].gather(1, best) - torch.arange(best.shape[1], device=best.device)
        values = torch.stack([flips, moved.abs().sum(1).double().mean()])
        self.sums[perturbation] += values
        self.squares[perturbation] += values.square()
        self.sequences[perturbation] += 1

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return means (P, 2) over sequences, and half the widths of their 95 % intervals, float64."""
        number = self.sequences[:, None]
        mean = self.sums / number
        variance = (self.squares / number - mean.square()).clamp(min=0) * number / (number - 1).clamp(min=1)
        return mean, 1.96 * (variance / number).sqrt()
