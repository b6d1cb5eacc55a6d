"""A patch embedding by a stack of small convolutions, for models that have timm's ``PatchEmbed``.

T. Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021.
"""

from typing import Any

from timm.layers import PatchEmbed
from torch import nn

from attention_zoo.errors import InputError


class ConvPatchEmbed(PatchEmbed):
    """3 x 3 convolutions of stride 2, each normalised by batch, then one of 1 x 1: (B, C, H, W) -> (B, N, dim).

    The convolutions double in width up to ``embed_dim``; there are as many as halvings in ``patch_size``.
    The arguments are those of timm's ``PatchEmbed``.

    Raises:
        InputError: the patch size is no power of two, or the width cannot be halved so often.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        **options: Any,
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **options)
        placement: dict[str, Any] = {name: options.get(name) for name in ("device", "dtype")}
        halvings = patch_size.bit_length() - 1
        first = embed_dim >> max(halvings - 1, 0)
        if patch_size < 2 or patch_size != 1 << halvings or first << (halvings - 1) != embed_dim:
            raise InputError(
                f"a convolutional stem needs patch_size={patch_size} to be 2, 4, 8, ..., and each a half "
                f"of embed_dim={embed_dim}"
            )
        widths = [in_chans, *(first << stage for stage in range(halvings))]
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False, **placement)
            layers += [conv, nn.BatchNorm2d(after, **placement), nn.ReLU()]
        last = nn.Conv2d(embed_dim, embed_dim, 1, bias=self.proj.bias is not None, **placement)
        self.register_module("proj", nn.Sequential(*layers, last))
