"""Decoders: they turn the maps of a backbone into the features that a head reads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from attention_zoo.models.interactive.head import upsample
from attention_zoo.models.mask_decoder.parts import ConvNorm


class Decoder(nn.Module, ABC):
    """Turns maps (B, c, h, w), finest first, into features (B, ``out_channels``, h, w)."""

    out_channels: int

    @abstractmethod
    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features of images of ``size`` pixels, and mask logits (B, 1, H, W) for training to supervise."""


class DecoderFactory(Protocol):
    """Anything that builds a decoder: its class, a partial of one, or a choice in a config."""

    def __call__(self, channels: Sequence[int], strides: Sequence[int]) -> Decoder:
        """Build and return the decoder for maps of these channels and strides."""


class Fusion(Decoder):
    """A decoder that projects every map, brings all to one grid, and fuses them.

    It is the decoder of SegFormer (E. Xie et al., NeurIPS 2021) with a 3 x 3 convolution at its end, since clicks need
    edges.

    Args:
        channels: number of channels of each map.
        strides: strides of the maps; not used, since the sizes of the maps tell them.
        width: number of channels of the features.
        stride: stride of the features in pixels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, width: int = 128, stride: int = 4) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, width
        self.project = nn.ModuleList(nn.Conv2d(channel, width, 1) for channel in channels)
        self.fuse = nn.Sequential(ConvNorm(len(channels) * width, width), ConvNorm(width, width, 3))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return features (B, width, H / stride, W / stride) of maps (B, c, h, w) of images of ``size``; no logits."""
        grid = -(-size[0] // self.stride), -(-size[1] // self.stride)
        projected = [upsample(project(x), grid) for project, x in zip(self.project, maps, strict=True)]
        return self.fuse(torch.cat(projected, 1)), ()
