"""Defines the outputs that a model may return in training in place of plain logits."""

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """The outputs of a model in training mode that has more than one output to train on.

    The task averages the cross-entropies of ``logits`` and ``extra_logits`` and adds ``aux_loss``.
    """

    logits: Tensor
    extra_logits: tuple[Tensor, ...] = ()
    aux_loss: Tensor | float = 0.0
