"""Units whose values a user has fixed, and their responsibilities (Eq. 24 of Gabbur et al., NeurIPS 2021)."""

from typing import NamedTuple

import torch
from torch import Tensor

from attention_zoo.functional.attention import log_normalized
from attention_zoo.functional.checks import check_exist, check_fixed
from attention_zoo.functional.mixture import Joint, Precision


class FixedValues(NamedTuple):
    """Values that a user has given for some units, e.g. an annotator's clicks.

    Attributes:
        index: the units, (S,) for all samples or (B, S). If a unit is named twice, the last entry counts.
        values: the values given for them, (B, H, S, E).
        mask: (B, S), false where an entry does not count, whatever its index and values are; None: all count.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name, which is not called
    values: Tensor
    mask: Tensor | None = None


def last_of_each(index: Tensor, counted: Tensor) -> Tensor:
    """Return which entries count, (B, S) bool, once those that a later entry about the same unit replaces are left out.

    Args:
        index: (B, S), the unit that each entry is about.
        counted: (B, S) bool, false where an entry does not count and replaces none.
    """
    same = index[:, :, None] == index[:, None, :]
    return counted & ~(same & counted[:, None, :]).triu(1).any(-1)


class FixedUnits:
    """The units whose values are fixed: which of them count, and their responsibilities.

    Args:
        q: queries (B, H, N, D), one for each unit.
        fixed: the values that a user has given for some units.
        model: the joint probability of queries and units by their keys.
        magnitude_prior: whether units are as probable as Eq. 10 says by their values.

    Raises:
        InputError: shapes do not fit, or a unit does not exist.
    """

    def __init__(self, q: Tensor, fixed: FixedValues, model: Joint, magnitude_prior: bool) -> None:
        check_fixed(q, *fixed)
        index, counted = within(q, fixed.index, fixed.mask)
        self.counted, self.magnitude_prior = counted[:, None, :, None], magnitude_prior
        self.values = fixed.values.masked_fill(~self.counted, 0.0)
        self.scores = model.scores(index)  # (B, H, S, M), without the values' terms

    def log_weights(self, v: Tensor, beta: Precision, condition_on_values: bool) -> Tensor:
        """Return log w_ik (B, H, S, M) of the fixed units i under the mean values v (B, H, M, E) (Eq. 24)."""
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
    """Return the fixed values with the index and mask of `within`, and 0 where they do not count.

    Args:
        q: queries (B, H, N, D), one for each unit.
        fixed: the values that a user has given for some units.

    Raises:
        InputError: shapes do not fit, or a unit does not exist.
    """
    check_fixed(q, *fixed)
    index, counted = within(q, fixed.index, fixed.mask)
    return FixedValues(index, fixed.values.masked_fill(~counted[:, None, :, None], 0.0), counted)


def within(q: Tensor, index: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return each sample's fixed units, and which entries count: if a unit is named twice, only the last one.

    Args:
        q: queries (B, H, N, D), one for each unit.
        index: the fixed units, (S,) for all samples or (B, S).
        mask: (B, S), false where an entry does not count; None: all count.

    Returns:
        The index (B, S), 0 where an entry does not count, and a bool (B, S) that is true for entries that count.

    Raises:
        InputError: an entry that counts names a unit that does not exist. Only the CPU checks this: on other devices,
            and in a graph that is being compiled, the check would stall the program, so the entry does not count.
    """
    index = index.long().expand(q.shape[0], -1)
    counted = torch.ones_like(index, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    exists = (index >= 0) & (index < q.shape[2])
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        check_exist(index[counted & ~exists], q.shape[2])
    counted = counted & exists
    index = index.masked_fill(~counted, 0)
    return index, last_of_each(index, counted)
