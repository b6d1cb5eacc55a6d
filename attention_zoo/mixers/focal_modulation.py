"""Focal modulation: context is gathered first, at several ranges, and modulates each token afterwards.

    [q, c_0, g] = f(x),    c_l = GELU(DWConv_{k_l}(c_{l-1})),    k_l = k_1 + 2 (l - 1)
    out = proj(q * h(sum_l g_l c_l + g_{L+1} GELU(mean c_L)))

J. Yang, C. Li, X. Dai, J. Gao, Focal Modulation Networks, NeurIPS 2022 (eq. 3 to 6).
"""

from typing import Annotated, Unpack, cast

import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import Domain
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import KernelSide
from attention_zoo.mixers.pointwise import Pointwise
from attention_zoo.mixers.registry import register

SomeLevels = Annotated[int, Domain(least=1, most=64)]
"""The number of depthwise convolutions, each wider than the one before."""


@register
class FocalModulation(SelfMixer):
    """``q ∘ h(Σₗ gₗ ∘ cₗ)``: depthwise convolutions of growing range, gated token by token. timm's weights load.

    A prefix token has no neighbours: the mean of the grid's context alone modulates it, and it is no part of that
    mean. The map tells what a token's context takes from other tokens, its own query and gates held.

    Args:
        dim: token width.
        num_heads: groups of channels that `attention_map` tells apart; the modulation does not.
        focal_window: kernel size k_1 of the first level; odd.
        focal_level: number of levels L.
        **host: see `SelfMixer`.
    """

    reading = "modulation by context"
    paper = "Yang et al. 2022 (FocalNet)"
    equation = "q ∘ h(Σₗ gₗ ∘ cₗ) (6)"
    complexity = "N"
    projections = ()
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        focal_window: KernelSide = 3,
        focal_level: SomeLevels = 2,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(focal_window % 2 == 1, f"focal_window={focal_window} must be odd")
        made = self.made
        self.f = Pointwise(dim, 2 * dim + focal_level + 1, **made)
        self.h = Pointwise(dim, dim, **made)
        self.proj = Pointwise(dim, dim, bias=host.get("proj_bias", True), **made)
        sizes = [focal_window + 2 * level for level in range(focal_level)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False, **made), nn.GELU())
            for size in sizes
        )

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the modulated tokens (B, H, N, D), from tokens as queries q and as context v, all (B, H, N, D)."""
        asking, context = (heads.transpose(1, 2).flatten(2) for heads in (q, v))  # (B, N, dim)
        dim, prefix = self.dim, self.num_prefix_tokens
        weight, bias = self.f.weight.flatten(1), cast(Tensor, self.f.bias)
        query = F.linear(asking, weight[:dim], bias[:dim])
        gates = F.linear(asking, weight[2 * dim :], bias[2 * dim :])  # (B, N, L + 1)
        levels = self.levels(F.linear(context[:, prefix:], weight[dim : 2 * dim], bias[dim : 2 * dim]))
        everywhere = levels[-1].mean(1, keepdim=True)
        modulator = gates[..., -1:] * F.gelu(everywhere)  # (B, N, dim)
        nearby = [gates[:, prefix:, level, None] * gathered for level, gathered in enumerate(levels)]
        modulator = modulator + F.pad(sum(nearby[1:], nearby[0]), (0, 0, prefix, 0))
        return (query * self.h(modulator)).to(v.dtype).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def levels(self, context: Tensor) -> list[Tensor]:
        """Return the levels c_1 to c_L of the grid's context c_0, (B, height * width, dim) each."""
        height, width = self.spatial_shape(context.shape[1] + self.num_prefix_tokens)
        image = context.transpose(1, 2).unflatten(-1, (height, width))
        gathered = []
        for layer in self.focal_layers:
            image = layer(image)
            gathered.append(image.flatten(2).transpose(1, 2))
        return gathered
