"""What the callbacks that draw a task's images share: which images of an evaluation are drawn, and their pixels."""

import math
from collections.abc import Sequence

from torch import Tensor


def due(images: int, number: int, batches: float, kept: int) -> int:
    """Return how many images of a batch are to be drawn, so that all are spread evenly over the batches; 0 is none.

    Args:
        images: number of images to draw of the whole evaluation.
        number: place of the batch, from 0.
        batches: number of batches of the evaluation.
        kept: number of images drawn of the batches before.
    """
    return max(math.ceil(images * (number + 1) / batches) - kept, 0)


def pixels(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return the pixels (B, 3, H, W) uint8 of images (B, 3, H, W) that are normalised by ``mean`` and ``std``."""
    shift, scale = (image.new_tensor(values)[:, None, None] for values in (mean, std))
    return ((image * scale + shift).clamp(0, 1) * 255).round().byte()
