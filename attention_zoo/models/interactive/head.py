"""Heads: a map of features, and clicks where the head reads them, to the logit of each pixel's being of the object."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.clicks import Clicks


class InteractiveHead(nn.Module, ABC):
    """Features (B, C, h, w) and clicks to logits (B, 1, H, W)."""

    reads_clicks: ClassVar[bool]
    """Whether clicks change anything here, so that the encoder can do without them."""

    @abstractmethod
    def forward(self, features: Tensor, clicks: Clicks, size: tuple[int, int]) -> Tensor:
        """Logits (B, 1, H, W).

        Args:
            features: (B, C, h, w), covering the image.
            clicks: on the image.
            size: height and width of the image in pixels.
        """


class HeadFactory(Protocol):
    """Anything that builds a head: its class, a partial of one, or a choice in a config."""

    def __call__(self, in_channels: int) -> InteractiveHead:
        """Build the head for features of ``in_channels`` channels."""


class ConvHead(InteractiveHead):
    """The usual classifier, a 1 x 1 convolution; clicks reach it by the encoder only.

    Args:
        in_channels: of the features.
    """

    reads_clicks = False

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, 1)

    def forward(self, features: Tensor, clicks: Clicks, size: tuple[int, int]) -> Tensor:
        """See `InteractiveHead`."""
        return upsample(self.conv(features), size)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, h, w) on another grid over the same image, bilinear."""
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
