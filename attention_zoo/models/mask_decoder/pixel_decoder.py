"""The pixel decoder: from the coarsest map of a backbone to the finest, one level at a time.

It is kMaX-DeepLab's, with timm's blocks, whose activation comes last. At the two coarsest levels a mixer may stand in
the blocks in place of their convolution: with `Axial` these are the axial blocks of MaX-DeepLab's pixel path (H. Wang
et al., CVPR 2021) and of kMaX-DeepLab's release. It goes level by level, so that a dual-path decoder can write to the
pixels between the levels.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import GELU, LayerNorm2d
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from attention_zoo.mixers.base import MixerFactory
from attention_zoo.models.mask_decoder.parts import ConvNorm, MapNorm, drop_path, resize

ATTENTIVE = 2
"""How many levels, from the coarsest, may have a mixer in their blocks."""

HEADS = 8
"""Heads of the mixers in the blocks, as in Axial-DeepLab; fewer where they do not divide a block's width."""


class MapMixer(nn.Module):
    """A self-mixer of the pixels of a map (B, C, h, w), in place of a convolution.

    Args:
        width: C, the number of channels.
        mixer: what mixes the pixels.
    """

    def __init__(self, width: int, mixer: MixerFactory) -> None:
        super().__init__()
        self.mixer = mixer(width, math.gcd(width, HEADS))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, C, h, w) of mixed pixels."""
        grid = x.shape[2], x.shape[3]
        self.mixer.set_grid(grid)
        return self.mixer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, grid)


class PixelDecoder(nn.Module):
    """A decoder with levels of bottleneck blocks; each adds the backbone's map to the upsampled map before it.

    Args:
        channels: number of channels of the backbone's maps, coarsest first.
        widths: width of each level's blocks, coarsest first; a level's map has four times as many channels.
        blocks: number of blocks of each level.
        drop_path_rate: stochastic depth of the blocks.
        attention: builds the mixers of the blocks at the coarsest levels; None leaves them convolutions.
    """

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        blocks: Sequence[int],
        drop_path_rate: float = 0.0,
        attention: MixerFactory | None = None,
    ) -> None:
        super().__init__()
        self.channels = [width * Bottleneck.expansion for width in widths]
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in channels)
        fused = [channels[0], *widths[1:]]
        self.stages = nn.ModuleList(
            _stage(inner, width, depth, drop_path_rate, attention if level < ATTENTIVE else None)
            for level, (inner, width, depth) in enumerate(zip(fused, widths, blocks, strict=True))
        )
        self.down = nn.ModuleList(
            ConvNorm(above, width, act=False) for above, width in zip(self.channels, widths[1:], strict=False)
        )
        self.lateral = nn.ModuleList(
            ConvNorm(channel, width, act=False) for channel, width in zip(channels[1:], widths[1:], strict=True)
        )

    def forward(self, level: int, features: Tensor, above: Tensor | None = None) -> Tensor:
        """Return the map of a level.

        Args:
            level: number of the level; 0 is the coarsest.
            features: the backbone's map (B, c, h, w) of this level.
            above: the map of the level before (B, C', h', w'), coarser; None at the first.

        Returns:
            (B, ``self.channels[level]``, h, w), the map.
        """
        x = self.norms[level](features)
        if above is not None:
            coarse = resize(self.down[level - 1](F.gelu(above)), features.shape[2:])
            x = coarse + self.lateral[level - 1](F.gelu(x))
        return self.stages[level](x)


def _stage(
    in_channels: int, width: int, depth: int, rate: float, attention: MixerFactory | None = None
) -> nn.Sequential:
    blocks = []
    for _ in range(depth):
        out_channels = width * Bottleneck.expansion
        shortcut = ConvNorm(in_channels, out_channels, act=False) if in_channels != out_channels else None
        block = Bottleneck(
            in_channels, width, downsample=shortcut, act_layer=GELU, norm_layer=MapNorm, drop_path=drop_path(rate)
        )
        block.zero_init_last()
        if attention is not None:
            block.conv2 = MapMixer(width, attention)  # type: ignore[assignment]  # in the place of a Conv2d
        blocks.append(block)
        in_channels = out_channels
    return nn.Sequential(*blocks)
