"""Defines the outputs that a model may return in training in place of plain logits."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """The outputs of a model in training mode that has more than one output to train on.

    The task averages the cross-entropies of ``logits`` and ``extra_logits`` and adds ``aux_loss`` and what
    ``target_loss``, if there is one, gives for the targets: labels (B,) int64, or shares of the classes (B, classes).
    """

    logits: Tensor
    extra_logits: tuple[Tensor, ...] = ()
    aux_loss: Tensor | float = 0.0
    target_loss: Callable[[Tensor], Tensor] | None = None
