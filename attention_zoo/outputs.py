"""What a model may return in training beside plain logits."""

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """Outputs of a model in training mode that has more than one to train on.

    The task averages the cross-entropies of ``logits`` and ``extra_logits`` and adds ``aux_loss``.
    """

    logits: Tensor
    extra_logits: tuple[Tensor, ...] = ()
    aux_loss: Tensor | float = 0.0
