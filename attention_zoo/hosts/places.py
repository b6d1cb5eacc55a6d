"""Where layers stand in models whose stages or branches have grids of their own, and take images of one size alone.

Such models (PiT, CrossViT) have no patch embedding that tells the grid of all layers, see `attention_zoo.grids`, but
where a layer stands says which grid it has.
"""

import re
from dataclasses import dataclass
from typing import cast

from timm.models.crossvit import CrossVit, PatchEmbed
from timm.models.pit import PoolingVisionTransformer
from torch import nn


@dataclass(frozen=True)
class Place:
    """Where a layer stands.

    Attributes:
        grid: rows and columns of its tokens.
        prefix: number of class tokens before the grid.
    """

    grid: tuple[int, int]
    prefix: int


def place_of(model: nn.Module, layer: str) -> Place | None:
    """Return the place of the layer of this name in a PiT or CrossViT, ``model`` itself or in it; None elsewhere."""
    for name, part in model.named_modules():
        start = f"{name}." if name else ""
        if not layer.startswith(start):
            continue
        if isinstance(part, PoolingVisionTransformer):
            return _in_pit(part, layer.removeprefix(start))
        if isinstance(part, CrossVit):
            return _in_crossvit(part, layer.removeprefix(start))
    return None


def _in_pit(model: PoolingVisionTransformer, layer: str) -> Place | None:
    """Return the place in a stage, each of which but the first begins with a convolution that pools."""
    match = re.fullmatch(r"transformers\.(\d+)\.blocks\.\d+\.attn", layer)
    if match is None:
        return None
    height, width = model.pos_embed.shape[2:]
    for stage in list(model.transformers)[: int(match[1]) + 1]:
        if stage.pool is not None:
            conv = cast(nn.Conv2d, cast(nn.Module, stage.pool).conv)
            kernel, step, edge = (cast(tuple[int, int], part) for part in (conv.kernel_size, conv.stride, conv.padding))
            height = (height + 2 * edge[0] - kernel[0]) // step[0] + 1
            width = (width + 2 * edge[1] - kernel[1]) // step[1] + 1
    return Place((height, width), model.cls_token.shape[1])


def _in_crossvit(model: CrossVit, layer: str) -> Place | None:
    """Return the place in a branch, whose patches are of their own size; where branches meet there is none."""
    match = re.fullmatch(r"blocks\.\d+\.blocks\.(\d+)\.\d+\.attn", layer)
    if match is None:
        return None
    patches = cast(PatchEmbed, model.patch_embed[int(match[1])])
    image, patch = cast(tuple[int, int], patches.img_size), cast(tuple[int, int], patches.patch_size)
    return Place((image[0] // patch[0], image[1] // patch[1]), 1)
