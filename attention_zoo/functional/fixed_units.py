"""Units whose values somebody has fixed, and their responsibilities (Eq. 24 of Gabbur et al., NeurIPS 2021)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention_zoo.functional.checks import check_fixed
from attention_zoo.functional.mixture import Precision, joint


class FixedValues(NamedTuple):
    """Values that somebody has given for some units, e.g. an annotator's clicks.

    Attributes:
        index: the units, (S,) for all samples or (B, S). Of one unit named twice the last counts.
        values: (B, H, S, E).
        mask: (B, S), false where an entry does not count; None: all count.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls
    values: Tensor
    mask: Tensor | None = None


def last_of_each(index: Tensor, counted: Tensor) -> Tensor:
    """Which entries count once those are left out that a later one about the same unit replaces: (B, S) bool.

    Args:
        index: (B, S), the unit that each entry is about.
        counted: (B, S) bool, false where an entry does not count and replaces none.
    """
    same = index[:, :, None] == index[:, None, :]
    return counted & ~(same & counted[:, None, :]).triu(1).any(-1)


class FixedUnits:
    """The units whose values are fixed: which of them count, and their responsibilities."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        index: Tensor,
        values: Tensor,
        mask: Tensor | None,
        alpha: Precision,
        magnitude_prior: bool,
        positions: Mapping[str, Any],
    ) -> None:
        check_fixed(q, index, values, mask)
        index = index.long().expand(q.shape[0], -1)  # (B, S)
        counted = torch.ones_like(index, dtype=torch.bool) if mask is None else mask.to(torch.bool)
        self.counted = last_of_each(index, counted)[:, None, :, None]
        self.values, self.magnitude_prior = values, magnitude_prior
        model = joint(q, k, alpha=alpha, magnitude_prior=magnitude_prior, **positions)
        self.scores = model.scores(index)  # (B, H, S, M), without the values' terms

    def log_weights(self, v: Tensor, beta: Precision, condition_on_values: bool) -> Tensor:
        """Log w_ik of the fixed units i (B, H, S, M) under the mean values v (Eq. 24)."""
        precision = beta[:, :, None] if isinstance(beta, Tensor) else beta
        scores = self.scores
        if condition_on_values:
            scores = scores + precision * (self.values @ v.mT)
            if isinstance(beta, Tensor):
                scores = scores - precision / 2 * self.values.square().sum(-1, keepdim=True)
                scores = scores + v.shape[-1] / 2 * beta[:, :, None].log()
        if condition_on_values != self.magnitude_prior:
            squares = precision / 2 * v.square().sum(-1)[:, :, None]
            scores = scores - squares if condition_on_values else scores + squares
        return scores.log_softmax(-1)
