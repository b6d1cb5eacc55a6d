"""Inference with models that label every pixel: whole images or windows, and averages over views."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.domains import PositiveFloat, PositiveInt, checked
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite


@checked
@dataclass
class Inference:
    """Inference over whole images or sliding windows, averaged over sizes and reflections.

    Args:
        window: height and width of the windows; None is the whole image at once.
        stride: rows and columns from a window to the next; None is two thirds of the window.
        scales: sizes at which the image is looked at, relative to that of the data; class probabilities are averaged.
        flip: also look at the image reflected from left to right.

    Raises:
        InputError: a value does not fit.
    """

    window: tuple[PositiveInt, PositiveInt] | None = None
    stride: tuple[PositiveInt, PositiveInt] | None = None
    scales: list[PositiveFloat] = field(default_factory=lambda: [1.0])
    flip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.scales, list | tuple) or not self.scales:
            raise InputError(f"scales={self.scales}: one or more numbers above 0")
        if self.stride is not None and self.window is None:
            raise InputError(f"stride={self.stride} is that of a sliding window; give window too")
        if self.window is None:
            return
        height, width = self.window
        self.stride = self.stride or (max(1, height * 2 // 3), max(1, width * 2 // 3))
        if any(not 0 < step <= side for step, side in zip(self.stride, self.window, strict=True)):
            raise InputError(f"stride={self.stride} must be from 1 to window={self.window}, or pixels are left out")

    def __call__(self, model: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Return the scores (B, C, H, W) of the classes: logits, or the log of averaged probabilities.

        Args:
            model: from images (B, 3, H, W) to logits (B, C, H, W).
            image: (B, 3, H, W), normalised.

        Raises:
            InputError: a logit is not finite.
        """
        if self.scales == [1.0] and not self.flip:
            return self._logits(model, image)
        total: Any = 0.0
        size = image.shape[2:]
        for scale in self.scales:
            scaled = [max(1, round(side * scale)) for side in size]
            view = image if scale == 1 else F.interpolate(image, scaled, mode="bilinear")
            for flipped in (False, True)[: 1 + self.flip]:
                logits = self._logits(model, view.flip(3) if flipped else view)
                logits = logits.flip(3) if flipped else logits
                total = total + F.interpolate(logits.float(), size, mode="bilinear").softmax(1)
        mean = total / (len(self.scales) * (1 + self.flip))
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()  # -inf would become NaN where it is resized

    def _logits(self, model: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Return the logits (B, C, H, W) of images at this size; where windows overlap, their mean."""
        if self.window is None or self.stride is None:
            return check_finite("logits", model(image))
        starts = [
            _starts(side, size, step)
            for side, size, step in zip(image.shape[2:], self.window, self.stride, strict=True)
        ]
        total: Any = 0.0
        number = torch.zeros_like(image[:1, :1])
        for top in starts[0]:
            for left in starts[1]:
                part = image[..., top : top + self.window[0], left : left + self.window[1]]
                below, right = image.shape[2] - top - part.shape[2], image.shape[3] - left - part.shape[3]
                total = total + F.pad(check_finite("logits", model(part)).float(), (left, right, top, below))
                number[..., top : top + part.shape[2], left : left + part.shape[3]] += 1
        return total / number


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Return the first pixel of each window along a side; the last window ends where the image does."""
    return [*range(0, max(side - window, 0), stride), max(side - window, 0)]
