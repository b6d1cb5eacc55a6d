"""Segments of images, taken from semantic masks or from panoptic data."""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Segments(NamedTuple):
    """The n segments of an image; pixels of none are void.

    Attributes:
        masks: (n, h, w) float, 1 inside.
        labels: (n,) int64, the class of each.
    """

    masks: Tensor
    labels: Tensor


def segments_of_mask(mask: Tensor, ignore_index: int = 255) -> Segments:
    """Return one segment for each class that a semantic mask (h, w) has, void left out."""
    labels = mask.unique()
    labels = labels[labels != ignore_index]
    return Segments((mask == labels[:, None, None]).float(), labels.long())


def segments_of_batch(batch: dict[str, Any], size: tuple[int, int], ignore_index: int = 255) -> list[Segments]:
    """Return the segments of each image at the size of the predicted masks.

    Args:
        batch: with ``segments``, a dictionary for each image of ``masks`` (n, H, W) bool, ``labels`` (n,) int64 and
            perhaps ``crowd`` (n,) bool, whose pixels are void; or else with ``mask`` (B, H, W) int64.
        size: height and width of the predictions; labels are taken at the nearest pixel, and segments that are too
            small for any are left out.
        ignore_index: label of void pixels.
    """
    if "segments" not in batch:
        small = F.interpolate(batch["mask"][:, None].double(), size, mode="nearest-exact")[:, 0].long()
        return [segments_of_mask(mask, ignore_index) for mask in small]
    segments = []
    for sample in batch["segments"]:
        crowd = sample.get("crowd")
        kept = slice(None) if crowd is None else ~crowd.bool()
        masks, labels = sample["masks"][kept].float(), sample["labels"][kept]
        if len(masks):
            masks = F.interpolate(masks[None], size, mode="nearest-exact")[0]
            seen = masks.flatten(1).any(1)
            masks, labels = masks[seen], labels[seen]
        else:
            masks = masks.new_zeros(0, *size)
        segments.append(Segments(masks, labels))
    return segments
