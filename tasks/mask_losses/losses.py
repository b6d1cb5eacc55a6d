"""The losses of one prediction, given what each query should predict: scalars, means over the images of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

MATCHED = 0.75
"""Weight of matched queries; that of unmatched ones, which should be void, is the rest."""

SMOOTH = 1.0
"""Number of pixels added to intersection and size in the dice loss."""


def class_loss(class_logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the cross-entropy of the queries' classes, each times its weight: PQ's recognition given segmentation.

    Args:
        class_logits: (B, L, C + 1), void last.
        labels: (B, L) int64, the class of each query; C, void, where unmatched.
        weight: (B, L), the similarity of a query's mask, see `MatchedTargets.class_weight`.
    """
    loss = F.cross_entropy(class_logits.float().mT, labels, reduction="none")
    balance = torch.where(labels == class_logits.shape[-1] - 1, 1 - MATCHED, MATCHED)
    return (balance * weight * loss).mean()


def dice_loss(mask_logits: Tensor, masks: Tensor, weight: Tensor, void: Tensor) -> Tensor:
    """Return 1 - dice of matched masks, each times its weight: PQ's segmentation given recognition.

    Args:
        mask_logits: (B, L, h, w).
        masks: (B, L, h, w), the true mask of each query.
        weight: (B, L), the probability of the true class; 0 where unmatched.
        void: (B, h, w) bool, pixels that do not count.
    """
    predicted = mask_logits.float().softmax(1) * ~void[:, None]
    shared = 2 * (predicted * masks).flatten(2).sum(-1) + SMOOTH
    size = predicted.flatten(2).sum(-1) + masks.flatten(2).sum(-1) + SMOOTH
    return MATCHED * (weight * (1 - shared / size)).mean()


def mask_id_loss(mask_logits: Tensor, masks: Tensor, void: Tensor) -> Tensor:
    """Return the cross-entropy of each pixel's query, the mean over an image's pixels that are not void.

    Args:
        mask_logits: (B, L, h, w).
        masks: (B, L, h, w), summing to one over the queries where not void.
        void: (B, h, w) bool.
    """
    loss = -(mask_logits.float().log_softmax(1) * masks).sum(1)
    return _mean(loss.flatten(1), ~void.flatten(1))


def contrastive_loss(
    features: Tensor, masks: Tensor, void: Tensor, area: Tensor, *, samples: int, exponent: float, temperature: float
) -> Tensor:
    """Return the loss of CMT-DeepLab's instance discrimination: pixels of a segment are to be alike and unlike others.

    It is, among sampled pixels, the cross-entropy of softmax(features · features / temperature) and membership of one
    segment.

    Args:
        features: (B, E, h, w), of unit length.
        masks: (B, L, h, w).
        void: (B, h, w) bool, pixels that are sampled only when there are no others, and do not count.
        area: (B, h, w), size of each pixel's segment.
        samples: pixels an image, drawn without replacement.
        exponent: power of the inverse area, to which a pixel's probability of being drawn is proportional.
        temperature: temperature of the softmax.
    """
    places = sample_pixels(area, void, samples, exponent)
    vectors = _at(features.float(), places)  # (B, E, K)
    members = _at(masks, places)  # (B, L, K)
    same = members.mT @ members
    same = same / same.sum(1, keepdim=True).clamp(min=1)
    loss = F.cross_entropy(vectors.mT @ vectors / temperature, same, reduction="none")
    return _mean(loss, ~void.flatten(1).gather(1, places))


def semantic_loss(
    logits: Tensor, mask: Tensor, area: Tensor, *, ignore_index: int, samples: int, exponent: float
) -> Tensor:
    """Return the cross-entropy of an auxiliary head's pixels, all of them or a sample that favours small segments.

    Args:
        logits: (B, C, h, w).
        mask: (B, h, w) int64.
        area: (B, h, w), size of each pixel's segment.
        ignore_index: label of void pixels.
        samples: pixels an image, drawn without replacement; 0 takes all.
        exponent: see `contrastive_loss`.
    """
    loss = F.cross_entropy(logits.float(), mask, ignore_index=ignore_index, reduction="none").flatten(1)
    counted = mask.flatten(1) != ignore_index
    if samples:
        places = sample_pixels(area, mask == ignore_index, samples, exponent)
        loss, counted = loss.gather(1, places), counted.gather(1, places)
    return _mean(loss, counted)


def sample_pixels(area: Tensor, void: Tensor, samples: int, exponent: float) -> Tensor:
    """Return the indices (B, K) of pixels drawn without replacement with odds (1 / area)^exponent, void ones last.

    They are drawn by the Gumbel-top-k trick; K is ``samples``, or the number of pixels if that is smaller.

    Args:
        area: (B, h, w), size of each pixel's segment.
        void: (B, h, w) bool.
        samples: pixels drawn in each image.
        exponent: power of the odds.
    """
    logits = -exponent * area.float().log().masked_fill(void, 1e6).flatten(1)
    uniform = torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny)
    gumbel = -(-uniform.log()).log()
    return (logits + gumbel).topk(min(samples, logits.shape[1])).indices


def _at(maps: Tensor, places: Tensor) -> Tensor:
    """Return the pixels (B, C, K) at the flat indices ``places`` (B, K) of maps (B, C, h, w)."""
    return maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1))


def _mean(loss: Tensor, counted: Tensor) -> Tensor:
    """Return the mean over the counted entries of each row (B, n), then over the rows; a row without any gives 0."""
    return ((loss * counted).sum(1) / counted.sum(1).clamp(min=1)).mean()
