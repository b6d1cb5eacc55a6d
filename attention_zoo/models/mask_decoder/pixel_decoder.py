"""The pixel decoder: from the coarsest map of a backbone to the finest, one level at a time.

It is kMaX-DeepLab's, with bottleneck blocks at all levels instead of axial attention at the two coarsest, and timm's
blocks, whose activation comes last. It goes level by level, so that a dual-path decoder can write to the pixels
between the levels.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import GELU, LayerNorm2d
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from attention_zoo.models.mask_decoder.parts import ConvNorm, MapNorm, drop_path, resize


class PixelDecoder(nn.Module):
    """A decoder with levels of bottleneck blocks; each adds the backbone's map to the upsampled map before it.

    Args:
        channels: number of channels of the backbone's maps, coarsest first.
        widths: width of each level's blocks, coarsest first; a level's map has four times as many channels.
        blocks: number of blocks of each level.
        drop_path_rate: stochastic depth of the blocks.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], blocks: Sequence[int], drop_path_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.channels = [width * Bottleneck.expansion for width in widths]
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in channels)
        fused = [channels[0], *widths[1:]]
        self.stages = nn.ModuleList(
            _stage(inner, width, depth, drop_path_rate)
            for inner, width, depth in zip(fused, widths, blocks, strict=True)
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


def _stage(in_channels: int, width: int, depth: int, rate: float) -> nn.Sequential:
    blocks = []
    for _ in range(depth):
        out_channels = width * Bottleneck.expansion
        shortcut = ConvNorm(in_channels, out_channels, act=False) if in_channels != out_channels else None
        block = Bottleneck(
            in_channels, width, downsample=shortcut, act_layer=GELU, norm_layer=MapNorm, drop_path=drop_path(rate)
        )
        block.zero_init_last()
        blocks.append(block)
        in_channels = out_channels
    return nn.Sequential(*blocks)
