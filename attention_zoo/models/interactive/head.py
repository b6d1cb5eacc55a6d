"""Heads: they turn a map of features, and clicks if they read any, into logits of pixels belonging to the object."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.clicks import Clicks


class InteractiveHead(nn.Module, ABC):
    """Turns features (B, C, h, w) and clicks into logits (B, 1, H, W)."""

    reads_clicks: ClassVar[bool]
    """Whether the head reads clicks, so that the encoder can do without them."""

    @abstractmethod
    def forward(self, features: Tensor, clicks: Clicks, size: tuple[int, int]) -> Tensor:
        """Return the logits (B, 1, H, W) of pixels belonging to the object.

        Args:
            features: (B, C, h, w), covering the image.
            clicks: the clicks on the images.
            size: height and width of the image in pixels.
        """


class HeadFactory(Protocol):
    """Anything that builds a head: its class, a partial of one, or a choice in a config."""

    def __call__(self, in_channels: int) -> InteractiveHead:
        """Build and return the head for features of ``in_channels`` channels."""


class ConvHead(InteractiveHead):
    """The usual classifier, a 1 x 1 convolution; clicks reach it only through the encoder.

    Args:
        in_channels: number of channels of the features.
    """

    reads_clicks = False

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, 1)

    def forward(self, features: Tensor, clicks: Clicks, size: tuple[int, int]) -> Tensor:
        """Return the mask logits (B, 1, H, W); the arguments are those of `InteractiveHead.forward`."""
        return upsample(self.conv(features), size)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, C, h, w) resized, by bilinear interpolation, to another grid over the same image."""
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
