"""Losses of one mask a sample, with pixels that count nowhere."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.errors import InputError, unknown
from tasks.clicks.checks import check_number

EPSILON = 1e-8
"""Keeps quotients finite."""


def binary_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """The mean over the pixels that count, of each sample.

    Args:
        logits: (B, H, W).
        target: (B, H, W), 1 on the object, 0 elsewhere.
        counts: (B, H, W), 1 where the pixel counts, 0 elsewhere.

    Returns:
        (B,).
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * counts).sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)


def normalised_focal(
    logits: Tensor, target: Tensor, counts: Tensor, *, alpha: float = 0.5, gamma: float = 2.0
) -> Tensor:
    """Focal loss whose weights are brought to a mean of 1 in each sample, so that its scale stays that of the loss.

    K. Sofiiuk et al., AdaptIS, ICCV 2019, with the constants of RITM. No gradient goes through the normalisation.

    Args:
        logits: as of `binary_cross_entropy`, as are target and counts.
        target: see there.
        counts: see there.
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
    """One minus the intersection over union of probabilities, whose union is their maximum.

    Args:
        logits: as of `binary_cross_entropy`, as are target and counts.
        target: see there.
        counts: see there.
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
"""By the names that configs have."""


def checked_losses(losses: dict[str, float]) -> dict[str, float]:
    """Weights of losses.

    Raises:
        InputError: there is no such loss, no weight, or one that is not positive.
    """
    for name, weight in losses.items():
        if name not in LOSSES:
            raise unknown("loss", name, LOSSES)
        check_number(f"losses: the weight of {name}", weight, above=0)
    if not losses:
        raise InputError(f"losses: give a weight to one of {', '.join(LOSSES)}")
    return losses
