"""Bi-level routing attention: a region of the grid reads the tokens of the few regions that suit it best.

    A^r = q^r (k^r)^T,    I = topk(A^r),    out_i = softmax(q_i k^{g T} / sqrt(d)) v^g + LCE(v)_i

q^r, k^r are means over a region, k^g, v^g the tokens of the regions in I.
L. Zhu, X. Wang, Z. Ke, W. Zhang, R. Lau, BiFormer: Vision Transformer with Bi-Level Routing Attention, CVPR 2023 (eq. 3
to 8).
"""

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.attention import attention_within_bound, bounded_by, largest_entry, softmax_attention
from attention_zoo.functional.depthwise import convolution_map, convolve_grid
from attention_zoo.functional.tiles import Tiling, rows_at, window_tiling
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import KernelSide, Number
from attention_zoo.mixers.registry import register


@register
class BiLevelRouting(SelfMixer):
    """Softmax attention over the tokens of the regions that a region of the grid is routed to, all heads alike.

    The grid is cut into at most ``regions`` x ``regions`` regions of one size, padded where they do not divide it; no
    token reads the padding. Where there are as many regions as rows and columns they are single tokens, and a warning
    says so. Routing has no gradient. Prefix tokens read all tokens and are read by all.

    Args:
        dim: token width.
        num_heads: heads.
        regions: number of regions in each axis of the grid.
        topk: number of regions that a region reads; where the grid has fewer, it reads all.
        kernel: side of the depthwise convolution's kernel (LCE), odd.
        variant: scores are divided by the root of a head's width ("paper"), or by that of all heads together
            ("released").
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, in routed regions"
    paper = "Zhu et al. 2023 (BiFormer)"
    equation = "softmax_{topk regions}(Q Kᵀ/√d) V + LCE(V)"
    complexity = "N^(4/3)"
    drops_attention = True
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        regions: Number = 7,
        topk: PositiveInt = 4,
        kernel: KernelSide = 3,
        variant: Literal["paper", "released"] = "paper",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        fits = topk <= regions**2
        self.check(fits, f"topk={topk} must be 1 to {regions**2}, the number of regions={regions} x {regions}")
        self.check(kernel % 2 == 1, f"kernel={kernel} must be odd")
        self.regions, self.topk = regions, topk
        if self.grid and max(self.grid) <= regions:
            self.warn(f"regions={regions} cuts the grid {self.grid} into single tokens, of which each reads {topk}")
        self.scale = (self.head_dim if variant == "paper" else dim) ** -0.5
        self.lepe = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, **self.made)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        grid, prefix = self.spatial_shape(q.shape[2]), self.num_prefix_tokens
        dropout = self.attn_drop.p if self.training else 0.0
        tiling = self.tiling(q, grid)
        routes = self.routes(q, k, tiling)  # (B, T, topk)
        read, inside = prefix + tiling.read[routes].flatten(2), tiling.inside()[routes].flatten(2)  # (B, T, topk t)
        if prefix:
            everybody = torch.arange(prefix, device=q.device).expand(*read.shape[:2], -1)
            read, inside = torch.cat((everybody, read), -1), F.pad(inside, (prefix, 0), value=True)
        asking, keys, values = (
            rows_at(tokens, places).flatten(0, 1)  # (B T, H, t, D)
            for tokens, places in ((q, prefix + tiling.readers), (k, read), (v, read))
        )
        mask = None if tiling.allowed is None else inside.flatten(0, 1)[:, None, None]
        # the bound of each region, from one look at each key, of which the regions hold several copies
        largest = rows_at(largest_entry(k), read).flatten(0, 1).amax(-2, keepdim=True)
        asking = bounded_by(asking, largest, self.scale)
        mixed = attention_within_bound(asking, keys, values, mask, dropout, scale=self.scale)
        mixed = mixed.transpose(1, 2).unflatten(0, read.shape[:2]).flatten(1, 2)  # (B, T t, H, D)
        mixed = mixed.index_select(1, tiling.where).transpose(1, 2)
        if prefix:
            first = softmax_attention(q[:, :, :prefix], k, v, dropout=dropout, scale=self.scale)
            mixed = torch.cat((first, mixed), 2)
        return mixed + convolve_grid(self.lepe, v, grid)

    def tiling(self, q: Tensor, grid: tuple[int, int]) -> Tiling:
        """Return the regions of a grid as tiles."""
        region = -(-grid[0] // self.regions), -(-grid[1] // self.regions)
        return window_tiling(grid, region, (0, 0), q.device)

    def routes(self, q: Tensor, k: Tensor, tiling: Tiling) -> Tensor:
        """Return the indices of the regions that each region reads, (B, T, topk) int64."""
        with torch.no_grad():
            queries, keys = (self.region_means(tokens, tiling) for tokens in (q, k))
            return (queries @ keys.mT).topk(min(self.topk, len(tiling.readers)), -1).indices

    def region_means(self, tokens: Tensor, tiling: Tiling) -> Tensor:
        """Return the means (B, T, H D) of tokens (B, H, N, D) over regions."""
        inside = tiling.inside().to(tokens.dtype)[..., None]  # (T, t, 1)
        sums = (rows_at(tokens, self.num_prefix_tokens + tiling.readers) * inside[:, None]).sum(3)  # (B, T, H, D)
        return (sums / inside.sum(1)[:, None]).flatten(2)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return softmax weights, zero where a region is not routed to, plus the convolution's mean kernel."""
        grid, prefix = self.spatial_shape(q.shape[2]), self.num_prefix_tokens
        tiling = self.tiling(q, grid)
        routes = self.routes(q, k, tiling)
        routed = torch.zeros(*routes.shape[:2], len(tiling.readers), dtype=torch.bool, device=q.device)
        routed = routed.scatter(-1, routes, True)  # (B, T, T)
        region = torch.div(tiling.where, tiling.readers.shape[1], rounding_mode="floor")
        allowed = F.pad(routed[:, region][:, :, region], (prefix, 0, prefix, 0), value=True)
        scores = (q @ k.mT * self.scale).masked_fill(~allowed[:, None], -torch.inf)
        return scores.softmax(-1) + convolution_map(self.lepe, self.num_heads, grid, prefix)
