"""Losses of one predicted mask for each sample, with pixels that do not count."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.domains import PositiveFloat, complaint, shown
from attention_zoo.errors import InputError, unknown

EPSILON = 1e-8
"""Small number added to a divisor, so that a quotient stays finite."""


def binary_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the binary cross-entropy of each sample, the mean over its pixels that count.

    Args:
        logits: (B, H, W).
        target: (B, H, W), 1 on the object, 0 elsewhere.
        counts: (B, H, W), 1 where the pixel counts, 0 elsewhere.

    Returns:
        The loss of each sample, (B,).
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * counts).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)


def normalised_focal(
    logits: Tensor, target: Tensor, counts: Tensor, *, alpha: float = 0.5, gamma: float = 2.0
) -> Tensor:
    """Return the focal loss (B,) of each sample, with focal weights scaled to a mean of 1 over its pixels that count.

    The loss so keeps the scale of the cross-entropy. K. Sofiiuk et al., AdaptIS, ICCV 2019, with the constants of RITM.
    No gradient goes through the normalisation.

    Args:
        logits: (B, H, W).
        target: (B, H, W), 1 on the object, 0 elsewhere.
        counts: (B, H, W), 1 where the pixel counts, 0 elsewhere.
        alpha: weight of the object's pixels; that of the others is 1 - alpha.
        gamma: power of the focal weight.
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focus = (1 - torch.exp(-losses)) ** gamma * counts
    with torch.no_grad():
        scale = counts.sum((1, 2)) / (focus.sum((1, 2)) + EPSILON)
    sides = alpha * target + (1 - alpha) * (1 - target)
    total = (sides * focus * losses).sum((1, 2)) * scale
    return total / counts.sum((1, 2)).clamp(min=1)


def soft_iou(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return one minus the soft IoU (B,) of each sample; the union is the maximum of probability and target.

    Args:
        logits: (B, H, W).
        target: (B, H, W), 1 on the object, 0 elsewhere.
        counts: (B, H, W), 1 where the pixel counts, 0 elsewhere.
    """
    probability = logits.sigmoid()
    shared = (probability * target * counts).sum((1, 2))
    covered = (torch.maximum(probability, target) * counts).sum((1, 2))
    return 1 - shared / (covered + EPSILON)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bce": binary_cross_entropy,
    "normalised_focal": normalised_focal,
    "soft_iou": soft_iou,
}
"""The losses, by the names they have in configs."""


def checked_losses(losses: dict[str, float]) -> dict[str, float]:
    """Return the weights of losses, by name, once they are checked.

    Raises:
        InputError: there is no loss of a name, no weight at all, or a weight that is not positive.
    """
    for name, weight in losses.items():
        if name not in LOSSES:
            raise unknown("loss", name, LOSSES)
        if complaint(weight, PositiveFloat):
            raise InputError(f"losses: the weight of {name} must be positive and finite, got {shown(weight)}")
    if not losses:
        raise InputError(f"losses: give a weight to one of {', '.join(LOSSES)}")
    return losses
