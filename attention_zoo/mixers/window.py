"""Window attention: tokens read their own window of the grid, and windows may be shifted.

    out_i = sum_{j in window(i)} softmax_j(q_i.k_j / sqrt(d) + B_{i - j}) v_j

Z. Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021 (eq. 4, Figure 4).
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attention_zoo.functional.tiles import Tiling, attend_in_tiles, weights_in_tiles, window_tiling
from attention_zoo.interface import HostOptions, SelfMixer
from attention_zoo.registry import register


@register
class Window(SelfMixer):
    """Softmax attention inside windows of the grid, with a learned bias for each relative position.

    A grid that windows do not divide is padded, and nobody reads the padding. A window larger than the grid is the
    grid. Prefix tokens read all tokens and are read by all, without a bias.

    Args:
        dim: token width.
        num_heads: heads.
        window: height and width of a window.
        shift: how far windows are moved up and left; Swin shifts those of every other layer by half a window.
        relative_bias: learn a bias for each head and relative position; it starts at zero.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, in windows"
    paper = "Liu et al. 2021 (Swin)"
    equation = "softmax_window(Q Kᵀ/√d + B) V"
    complexity = "N w²"
    drops_attention = True
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        window: int = 7,
        shift: int = 0,
        relative_bias: bool = True,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(window > 0, f"window={window} must be above 0")
        self.check(0 <= shift < window, f"shift={shift} must be at least 0 and below window={window}")
        self.window, self.shift = window, shift
        self.relative_bias = None
        if relative_bias:
            weight = self.proj.weight
            span = 2 * window - 1
            self.relative_bias = nn.Parameter(weight.new_zeros(num_heads, span, span))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, H, N, D) -> (B, H, N, D)."""
        tiling, bias = self.tiling(q)
        dropout = self.attn_drop.p if self.training else 0.0
        return attend_in_tiles(q, k, v, tiling, prefix=self.num_prefix_tokens, bias=bias, dropout=dropout)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The softmax weights, zero outside of a token's window."""
        tiling, bias = self.tiling(q)
        return weights_in_tiles(q, k, tiling, prefix=self.num_prefix_tokens, bias=bias)

    def tiling(self, q: Tensor) -> tuple[Tiling, Tensor | None]:
        """The windows of the grid that q (B, H, N, D) has, and the bias (H, t, t) inside one."""
        grid = self.spatial_shape(q.shape[2])
        window = tuple(min(self.window, size) for size in grid)
        shift = tuple(0 if size <= self.window else self.shift for size in grid)
        bias = None if self.relative_bias is None else self.bias_within(window)
        return window_tiling(grid, window, shift, q.device), bias

    def bias_within(self, window: tuple[int, int]) -> Tensor:
        """B for the pairs of a window's tokens, (H, t, t)."""
        rows, columns = (torch.arange(size, device=self.relative_bias.device) for size in window)
        down, right = (axis[:, None] - axis + self.window - 1 for axis in (rows, columns))
        return self.relative_bias[:, down[:, None, :, None], right[None, :, None, :]].flatten(3).flatten(1, 2)
