"""Augmentation that a person configured: what it raises and what it hands on, said in one line."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from attention_zoo.errors import InputError

OVERSHOOT = 0.5
"""How far floats may lie outside 0..1: bicubic resizing puts them there at sharp edges, normalising them further."""


class Augment:
    """Transforms one after the other, whose errors name the transform and the image.

    Args:
        transforms: each takes and returns the parts of a sample, the image first. One that leaves 0..1 on purpose has
            an attribute ``span``, the least and largest value that it gives.
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = list(transforms)
        spans = [(-OVERSHOOT, 1 + OVERSHOOT), *(one.span for one in transforms if hasattr(one, "span"))]
        self.least, self.most = min(low for low, _ in spans), max(high for _, high in spans)

    def __len__(self) -> int:
        return len(self.transforms)

    def __call__(self, *parts: Tensor, name: str) -> tuple[Tensor, ...]:
        """Transform a sample.

        Args:
            parts: the image (3, H, W) uint8, then what is transformed together with it.
            name: what an error calls the sample, such as "image a.png".

        Returns:
            As many parts; the image is uint8, or floats that lie in 0..1.

        Raises:
            InputError: a transform fails on the image, or the image that the last one gives is of other numbers.
        """
        for transform in self.transforms:
            parts = self._applied(transform, parts, name)
        self._check(parts[0], name)
        return parts

    def _applied(self, transform: Callable[..., Any], parts: tuple[Tensor, ...], name: str) -> tuple[Tensor, ...]:
        called = type(transform).__name__
        try:
            given = transform(*parts)
        except (InputError, OSError, MemoryError):  # say themselves what is wrong, which is not the image
            raise
        except Exception as error:  # transforms raise nearly anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"augment: {called} fails on {name}: {reason}") from error
        if len(parts) == 1:
            return (given,)
        if not isinstance(given, (tuple, list)) or len(given) != len(parts):
            raise InputError(f"augment: {called} must take and return {len(parts)} parts together, the image first")
        return tuple(given)

    def _check(self, image: Any, name: str) -> None:
        """Refuse what would be normalised otherwise than the images of evaluation are."""
        found = type(image).__name__
        if isinstance(image, Tensor):
            if image.dtype == torch.uint8:
                return
            found = str(image.dtype).removeprefix("torch.")
            if image.is_floating_point() and image.numel():
                low, high = cast(tuple[float, float], tuple(bound.item() for bound in image.aminmax()))
                if self.least <= low and high <= self.most:
                    return
                found += f" from {low:.4g} to {high:.4g}"
        listed = ", ".join(type(one).__name__ for one in self.transforms)
        raise InputError(
            f"augment: [{listed}] makes {found} of {name}; it must give uint8, or floats in 0..1 "
            "(ToDtype(float32, scale=True)), which are normalised afterwards by mean and std of the data"
        )
