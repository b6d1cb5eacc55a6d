"""The losses that attacks increase, image by image."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.errors import InputError

Loss = Literal["cross_entropy", "margin", "dlr"]

LEAST_CLASSES = {"cross_entropy": 1, "margin": 2, "dlr": 3}
"""The fewest classes that a loss needs: the margin needs a second logit, the DLR loss divides by the third largest."""

TINY = 1e-12
"""A number added to the divisor of the DLR loss, as its authors do."""


def losses_of(logits: Tensor, label: Tensor, loss: Loss) -> Tensor:
    """Return the loss (B,) of each image.

    Raises:
        InputError: the loss is not defined for so few classes.
    """
    least = LEAST_CLASSES[loss]
    if logits.shape[1] < least:
        raise InputError(f"loss={loss} needs at least {least} classes, the model has {logits.shape[1]}")
    if loss == "cross_entropy":
        return F.cross_entropy(logits, label, reduction="none")
    right = F.one_hot(label, logits.shape[1]).bool()
    margin = logits.masked_fill(right, -torch.inf).amax(1) - logits[right]
    if loss == "margin":
        return margin
    largest = logits.topk(3).values
    return margin / (largest[:, 0] - largest[:, 2] + TINY)


def harm(logits: Tensor, label: Tensor, loss: Loss) -> Tensor:
    """Return how bad an attack is for the model, (B,): infinite where the model errs, else the loss."""
    wrong = logits.argmax(1) != label
    return torch.where(wrong, torch.inf, losses_of(logits.float(), label, loss))
