"""Clicks of an annotator, as tasks, models and data modules hand them to each other."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from attention_zoo.errors import InputError

POSITIVE, NEGATIVE, PADDING = 1, 0, -1
"""Labels of clicks: on the object, on the background, and no click at all."""


def _no_points() -> Tensor:
    return torch.zeros(1, 0, 2)


def _no_labels() -> Tensor:
    return torch.zeros(1, 0, dtype=torch.int64)


@dataclass(frozen=True)
class Clicks:
    """Clicks on a batch of images, in the order they were made; images with fewer clicks than others are padded.

    Attributes:
        points: (B, n, 2) float32, row and column (y, x) in pixels of the image; the first pixel's centre is (0, 0).
        labels: (B, n) int64: 1 on the object, 0 on the background, -1 padding.

    Raises:
        InputError: the shapes do not fit, or a label is none of the three.
    """

    points: Tensor = field(default_factory=_no_points)
    labels: Tensor = field(default_factory=_no_labels)

    def __post_init__(self) -> None:
        if self.points.dim() != 3 or self.points.shape[-1] != 2 or self.labels.shape != self.points.shape[:2]:
            shapes = tuple(self.points.shape), tuple(self.labels.shape)
            raise InputError(f"clicks are points (B, n, 2) and labels (B, n), got {shapes[0]} and {shapes[1]}")

    @classmethod
    def empty(cls, batch_size: int, device: torch.device | str | None = None) -> Self:
        """No clicks yet on ``batch_size`` images."""
        points = torch.zeros(batch_size, 0, 2, device=device)
        return cls(points, torch.zeros(batch_size, 0, dtype=torch.int64, device=device))

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def count(self) -> int:
        """Clicks an image, padding included."""
        return self.labels.shape[1]

    def append(self, points: Tensor, labels: Tensor) -> Self:
        """With further clicks after these: points (B, 2) or (B, n, 2), labels (B,) or (B, n)."""
        points = points.unsqueeze(1) if points.dim() == 2 else points
        labels = labels.unsqueeze(1) if labels.dim() == 1 else labels
        points, labels = points.to(self.points), labels.to(self.labels)
        return type(self)(torch.cat([self.points, points], 1), torch.cat([self.labels, labels], 1))

    def until(self, count: int) -> Self:
        """The first ``count`` clicks of each image."""
        return type(self)(self.points[:, :count], self.labels[:, :count])

    def flip(self, width: int) -> Self:
        """On the mirror images of images ``width`` pixels wide."""
        mirrored = torch.stack([self.points[..., 0], width - 1 - self.points[..., 1]], -1)
        return type(self)(mirrored, self.labels)

    def moved(self, origin: Tensor, scale: Tensor) -> Self:
        """On a part of the image that was cut out and then resized: ``(point - origin) * scale``.

        Args:
            origin: (2,) or (B, 1, 2), row and column of the part's first pixel.
            scale: (2,) or (B, 1, 2), size of the resized part over its size in the image.
        """
        return type(self)((self.points - origin) * scale, self.labels)

    def cat(self, other: Self) -> Self:
        """The images of both, one batch after the other; as many clicks each, padded."""
        longest = max(self.count, other.count)
        first, second = self.padded(longest), other.padded(longest)
        return type(self)(torch.cat([first.points, second.points]), torch.cat([first.labels, second.labels]))

    def padded(self, count: int) -> Self:
        """With padding up to ``count`` clicks an image."""
        missing = max(count - self.count, 0)
        return self.append(
            self.points.new_zeros(self.batch_size, missing, 2),
            self.labels.new_full((self.batch_size, missing), PADDING),
        )

    def __getitem__(self, images: slice | Tensor) -> Self:
        """The clicks of some of the images."""
        return type(self)(self.points[images], self.labels[images])

    def to(self, device: torch.device | str) -> Self:
        """On another device."""
        return type(self)(self.points.to(device), self.labels.to(device))
