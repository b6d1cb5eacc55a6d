"""Where layers stand: the grid of their tokens, and the tokens before it, in the models that say them.

The patch embedding of a vision transformer says rows and columns of the tokens of all layers, see
`attention_zoo.grids`. The stages of PiT and the branches of CrossViT have grids of their own, for images of one size.
"""

import re
from dataclasses import dataclass
from typing import cast

from timm.models.crossvit import CrossVit, PatchEmbed
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from attention_zoo.hosts.table import GRID_HOSTS


@dataclass(frozen=True)
class Place:
    """Where a layer stands.

    Attributes:
        grid: rows and columns of its tokens; None where they are told in each forward pass alone.
        prefix: number of class and register tokens before the grid.
    """

    grid: tuple[int, int] | None
    prefix: int


def place_of(model: nn.Module, layer: str) -> Place | None:
    """Return the place of the layer of this name in the innermost model that says it, ``model`` itself included.

    It is None where none does.
    """
    found = None
    for name, part in model.named_modules():
        start = f"{name}." if name else ""
        if not layer.startswith(start):
            continue
        if isinstance(part, GRID_HOSTS):
            found = Place(grid_size(part), prefix_of(part))
        elif isinstance(part, PoolingVisionTransformer):
            found = _in_pit(part, layer.removeprefix(start))
        elif isinstance(part, CrossVit):
            found = _in_crossvit(part, layer.removeprefix(start))
    return found


def grid_size(host: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the token grid that a vision transformer is built for, or None."""
    grid = getattr(host.patch_embed, "grid_size", None)
    return None if grid is None else tuple(grid)


def prefix_of(part: nn.Module) -> int:
    """Return the number of class and register tokens before the grid that a model, or a mixer, says; else 0."""
    return getattr(part, "num_prefix_tokens", 0)


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
