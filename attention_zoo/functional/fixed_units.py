"""Units whose values somebody has fixed, and their responsibilities (Eq. 24 of Gabbur et al., NeurIPS 2021)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention_zoo.functional.attention import log_normalized
from attention_zoo.functional.checks import check_exist, check_fixed
from attention_zoo.functional.mixture import Precision, joint


class FixedValues(NamedTuple):
    """Values that somebody has given for some units, e.g. an annotator's clicks.

    Attributes:
        index: the units, (S,) for all samples or (B, S). Of one unit named twice the last counts.
        values: (B, H, S, E).
        mask: (B, S), false where an entry does not count, whatever its index and values are; None: all count.
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
        index, self.values, counted = resolved(q, FixedValues(index, values, mask))
        self.counted, self.magnitude_prior = counted[:, None, :, None], magnitude_prior
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
        return log_normalized(scores)


def resolved(q: Tensor, fixed: FixedValues) -> FixedValues:
    """Fixed values of units that have one query each, q (B, H, N, D): as `within` has them, 0 where they do not count.

    Raises:
        InputError: shapes that do not fit, or a unit that there is not.
    """
    check_fixed(q, *fixed)
    index, counted = within(q, fixed.index, fixed.mask)
    return FixedValues(index, fixed.values.masked_fill(~counted[:, None, :, None], 0.0), counted)


def within(q: Tensor, index: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Fixed units as each sample's own, and which entries count: of one unit named twice the last.

    Args:
        q: queries (B, H, N, D), one for each unit.
        index: (S,) or (B, S).
        mask: (B, S), or None.

    Returns:
        Index (B, S), 0 where an entry does not count, and which entries count (B, S).

    Raises:
        InputError: an entry that counts names a unit that there is not. That is asked on the CPU alone: elsewhere,
            and in a graph that is being compiled, it would stop the program, and the entry does not count.
    """
    index = index.long().expand(q.shape[0], -1)
    counted = torch.ones_like(index, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    exists = (index >= 0) & (index < q.shape[2])
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        check_exist(index[counted & ~exists], q.shape[2])
    counted = counted & exists
    index = index.masked_fill(~counted, 0)
    return index, last_of_each(index, counted)
