"""Gives a mask decoder maps at the strides it needs, from a backbone that has others, such as a plain ViT."""

from collections.abc import Sequence

from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder.parts import ConvNorm, resize


class Pyramid(nn.Module):
    """Resizes each map to its stride between a 1 x 1 and a 3 x 3 convolution; maps that fit stay as they are.

    A map made finer gets the fewer channels, as in ViTDet's simple pyramid (Y. Li et al., ECCV 2022): half as many for
    every doubling.

    Args:
        channels: number of channels of the backbone's maps, finest first.
        strides: strides of the backbone's maps; several may be the same.
        wanted: the strides wanted, finest first, one for each map.

    Raises:
        InputError: there are not as many strides as maps.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], wanted: Sequence[int]) -> None:
        super().__init__()
        if len(wanted) != len(strides):
            raise InputError(f"strides={tuple(wanted)}: the backbone has {len(strides)} maps, of strides {strides}")
        self.scales = [has / wants for has, wants in zip(strides, wanted, strict=True)]
        self.channels = [max(1, int(width / max(scale, 1))) for width, scale in zip(channels, self.scales, strict=True)]
        pairs = zip(channels, self.channels, self.scales, strict=True)
        self.before = nn.ModuleList(nn.Identity() if scale == 1 else ConvNorm(a, b) for a, b, scale in pairs)
        own = zip(self.channels, self.scales, strict=True)
        self.after = nn.ModuleList(nn.Identity() if scale == 1 else ConvNorm(b, b, 3) for b, scale in own)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps (B, C, h * scale, w * scale) of the wanted strides, from maps (B, c, h, w), finest first."""
        sizes = [
            [max(1, round(side * scale)) for side in x.shape[2:]] for x, scale in zip(maps, self.scales, strict=True)
        ]
        layers = zip(maps, sizes, self.before, self.after, strict=True)
        return [after(resize(before(x), tuple(size))) for x, size, before, after in layers]
