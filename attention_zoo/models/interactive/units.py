"""Clicks on the units of a head: the unit that each falls on, and whether it counts."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from attention_zoo.clicks import PADDING, POSITIVE, Clicks
from attention_zoo.functional.fixed_units import last_of_each


class ClickedUnits(NamedTuple):
    """Clicks as units of a grid; if several fall on one unit, the last counts.

    Attributes:
        index: (B, n) int64, the number of each unit, counted row by row.
        labels: (B, n) int64, 1 for clicks on the object and 0 for all others.
        counted: (B, n) bool, whether a click counts: not padding, not outside the image, not replaced by a later one.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls
    labels: Tensor
    counted: Tensor

    @classmethod
    def of(cls, clicks: Clicks, size: tuple[int, int], grid: tuple[int, int]) -> Self:
        """Return the units that clicks fall on.

        Args:
            clicks: clicks on B images.
            size: height and width of the images in pixels.
            grid: rows and columns of units that cover the images.
        """
        extent, sides = (torch.tensor(pair, device=clicks.points.device) for pair in (size, grid))
        centres = clicks.points + 0.5
        inside = ((centres >= 0) & (centres < extent)).all(-1) & (clicks.labels != PADDING)
        place = (centres * (sides / extent)).long().clamp(torch.zeros_like(sides), sides - 1)  # (B, n, 2)
        index = place[..., 0] * grid[1] + place[..., 1]
        return cls(index, (clicks.labels == POSITIVE).long(), last_of_each(index, inside))

    def planes(self, num_units: int) -> Tensor:
        """Return the corrective channels (B, N, 2), float32: 1 for units clicked as object, then as background."""
        flat = torch.zeros(len(self.index), 2 * num_units, device=self.index.device)
        flat = flat.scatter_add(1, 2 * self.index + 1 - self.labels, self.counted.float())
        return flat.unflatten(1, (num_units, 2))
