"""Says in timm's words how the images of a classifier are brought to its size."""

import math
from typing import Any

from torch import nn
from torchvision.transforms import v2


def in_words_of_timm(resize: nn.Module, size: tuple[int, int]) -> dict[str, Any] | None:
    """Return what `timm.data.create_transform` needs to bring an image to its size as a transform does.

    Args:
        resize: the transform, of an image of any size: it squeezes the whole image, or cuts the middle out of one
            whose shorter side was brought to a length.
        size: height and width of its result.

    Returns:
        ``crop_pct``, ``crop_mode`` and ``interpolation``; None where timm has no words for the transform.
    """
    height, width = size
    match list(resize) if isinstance(resize, nn.Sequential) else [resize]:
        case [v2.Resize(size=[*sides]) as first] if tuple(sides) == size:
            return {
                "crop_pct": 1.0,
                "crop_mode": "squash",
                "interpolation": v2.InterpolationMode(first.interpolation).value,
            }
        case [v2.Resize(size=[side]) as first, v2.CenterCrop()] if height == width:
            share = height / side
            if math.floor(height / share) != side:  # timm rounds down what it divides
                share = height / (side + 0.5)
            return {
                "crop_pct": share,
                "crop_mode": "center",
                "interpolation": v2.InterpolationMode(first.interpolation).value,
            }
    return None
