"""From the maps of a backbone to the features of a head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from attention_zoo.models.interactive.head import upsample
from attention_zoo.models.mask_decoder.parts import ConvNorm


class Decoder(nn.Module, ABC):
    """Maps (B, c, h, w), finest first, to features (B, ``out_channels``, h, w)."""

    out_channels: int

    @abstractmethod
    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features of an image of ``size`` pixels, and mask logits (B, 1, H, W) that training may supervise too."""


class DecoderFactory(Protocol):
    """Anything that builds a decoder: its class, a partial of one, or a choice in a config."""

    def __call__(self, channels: Sequence[int], strides: Sequence[int]) -> Decoder:
        """Build the decoder for maps of these channels and strides."""


class Fusion(Decoder):
    """Every map projected, brought to one grid, and fused.

    The decoder of SegFormer (E. Xie et al., NeurIPS 2021) with one 3 x 3 convolution at its end, since clicks ask for
    edges.

    Args:
        channels: of the maps.
        strides: of the maps; not used, their sizes say as much.
        width: channels of the features.
        stride: of the features.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, width: int = 128, stride: int = 4) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, width
        self.project = nn.ModuleList(nn.Conv2d(channel, width, 1) for channel in channels)
        self.fuse = nn.Sequential(ConvNorm(len(channels) * width, width), ConvNorm(width, width, 3))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Maps (B, c, h, w) of an image of ``size`` to features (B, width, H / stride, W / stride), and no logits."""
        grid = -(-size[0] // self.stride), -(-size[1] // self.stride)
        projected = [upsample(project(x), grid) for project, x in zip(self.project, maps, strict=True)]
        return self.fuse(torch.cat(projected, 1)), ()
