"""Window attention: tokens read their own window of the grid, and windows may be shifted.

    out_i = sum_{j in window(i)} softmax_j(q_i.k_j / sqrt(d) + B_{i - j}) v_j

Z. Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021 (eq. 4, Figure 4).
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.tiles import (
    Tiling,
    attend_in_tiles,
    attend_in_windows,
    weights_in_tiles,
    window_tiling,
)
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register


@register
class Window(SelfMixer):
    """Softmax attention inside windows of the grid, with a learned bias for each relative position.

    A grid that windows do not divide is padded, and no token reads the padding. A window larger than the grid is cut
    to the grid; where one covers it all, a warning says so. Prefix tokens read all tokens and are read by all, without
    a bias.

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
        window: PositiveInt = 7,
        shift: int = 0,
        relative_bias: bool = True,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(shift < window, f"shift={shift} must be below window={window}")
        self.window, self.shift = window, shift
        self.warn_if_covered("window", window)
        self.relative_bias = None
        if relative_bias:
            span = 2 * window - 1
            self.relative_bias = nn.Parameter(torch.zeros(num_heads, span, span, **self.made))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        dropout = self.attn_drop.p if self.training else 0.0
        grid, window, shift = self.windows(q)
        whole = not any(shift) and grid[0] % window[0] == grid[1] % window[1] == 0
        if whole and not self.num_prefix_tokens:
            return attend_in_windows(q, k, v, grid, window, bias=self.bias_inside(window), dropout=dropout)
        tiling, bias = self.tiling(q)
        return attend_in_tiles(q, k, v, tiling, prefix=self.num_prefix_tokens, bias=bias, dropout=dropout)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N), zero outside of a token's window."""
        tiling, bias = self.tiling(q)
        return weights_in_tiles(q, k, tiling, prefix=self.num_prefix_tokens, bias=bias)

    def tiling(self, q: Tensor) -> tuple[Tiling, Tensor | None]:
        """Return the windows, as tiles, of the grid of q (B, H, N, D), and the bias (H, t, t) inside a window."""
        grid, window, shift = self.windows(q)
        return window_tiling(grid, window, shift, q.device), self.bias_inside(window)

    def windows(self, q: Tensor) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Return rows and columns of the grid of q (B, H, N, D), of its windows, and of their shift."""
        grid = self.spatial_shape(q.shape[2])
        down, right = (0 if size <= self.window else self.shift for size in grid)
        return grid, (min(self.window, grid[0]), min(self.window, grid[1])), (down, right)

    def bias_inside(self, window: tuple[int, int]) -> Tensor | None:
        """Return the bias (H, t, t) inside a window of these rows and columns; None without one."""
        return None if self.relative_bias is None else window_bias(self.relative_bias, window)


def window_bias(bias: Tensor, window: tuple[int, int]) -> Tensor:
    """Return B (H, t, t) for the pairs of a window's t tokens, from the bias of each relative position.

    Args:
        bias: (H, 2 w - 1, 2 w - 1), of the positions within windows of side w.
        window: height and width of this window, w or less.
    """
    height, width = window
    middle = bias.shape[-1] // 2
    bias = bias[:, middle + 1 - height : middle + height, middle + 1 - width : middle + width]
    # entry [h, i, j, s, t] of the views is the bias at (i + s, j + t); flipped, t is the key's column, s its row
    pairs = bias.unfold(1, height, 1).unfold(2, width, 1).flip(3, 4)
    return pairs.reshape(len(bias), height * width, height * width)
