"""Varied-size windows: the keys and values of a window are read where the window predicts them to be.

    scale, offset = Conv1x1(LeakyReLU(mean of the window's tokens)),    for each window and head
    p_j = c + (1 + scale) (j - c) + offset,    c the centre of the window, j its tokens' positions
    out_i = sum_j softmax_j(q_i.k(p_j) / sqrt(d) + B_{i - j}) v(p_j)

Q. Zhang, Y. Xu, J. Zhang, D. Tao, VSA: Learning Varied-Size Window Attention in Vision Transformers, ECCV 2022 (eq. 3
to 6).
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register
from attention_zoo.mixers.window import window_bias


@register
class VariedSizeWindow(SelfMixer):
    """Window attention whose windows move and change their size, head by head; at the start they are plain windows.

    Keys and values between tokens are interpolated. A grid that windows do not divide is padded with zeros below and
    to the right, and keys and values outside of the grid are zero: they are read, as in the released code. An offset
    of one is, as there, half of the padded grid over the number of windows. Prefix tokens read all tokens and are
    read by all, without a bias.

    Args:
        dim: token width.
        num_heads: heads.
        window: height and width of a window; one larger than the grid is cut to the grid.
        relative_bias: learn a bias for each head and relative position; it starts at zero.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, in windows that move"
    paper = "Zhang et al. 2022 (VSA)"
    equation = "softmax(Q K(p)ᵀ/√d + B) V(p) (3–6)"
    complexity = "N w²"
    takes_tokens = True
    drops_attention = True
    tokens = "grid"
    relative_bias: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        window: PositiveInt = 7,
        relative_bias: bool = True,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.window = window
        self.scales, self.offsets = (nn.Conv2d(dim, 2 * num_heads, 1, **self.made) for _ in range(2))
        for parameter in (*self.scales.parameters(), *self.offsets.parameters()):
            nn.init.zeros_(parameter)
        span = 2 * window - 1
        bias = nn.Parameter(torch.zeros(num_heads, span, span, **self.made)) if relative_bias else None
        self.register_parameter("relative_bias", bias)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of q (B, H, N, 2 D; see `SelfMixer.split_tokens`), k and v."""
        q, tokens = self.split_tokens(q)
        grid, prefix = self.spatial_shape(k.shape[2]), self.num_prefix_tokens
        window, _ = self._layout(grid)
        places = self.places(tokens, grid)
        asking = _windows(_padded(q[:, :, prefix:], grid, window), window)
        keys, values = (_windows(_sampled(_padded(x[:, :, prefix:], grid, window), places), window) for x in (k, v))
        batch, number = q.shape[0], asking.shape[1]
        if prefix:  # read by every window
            first = [x[:, None, :, :prefix].expand(-1, number, -1, -1, -1) for x in (k, v)]
            keys, values = (torch.cat(pair, 3) for pair in zip(first, (keys, values), strict=True))
        dropout = self.attn_drop.p if self.training else 0.0
        bias = self._bias(window)
        bias = None if bias is None else bias[None].to(q.dtype)
        mixed = softmax_attention(asking.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), bias, dropout)
        mixed = _unwindowed(mixed.unflatten(0, (batch, number)), grid, window)
        if not prefix:
            return mixed
        return torch.cat((softmax_attention(q[:, :, :prefix], k, v, dropout=dropout), mixed), 2)

    def places(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return where the keys of the padded grid's slots are read, (B, H, height, width, 2), as (x, y) in tokens.

        Args:
            tokens: (B, N, dim).
            grid: height and width of the grid.
        """
        window, numbers = self._layout(grid)
        image = tokens[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(-1, grid)
        size = numbers[0] * window[0], numbers[1] * window[1]
        means = F.leaky_relu(F.avg_pool2d(F.pad(image, (0, size[1] - grid[1], 0, size[0] - grid[0])), window))
        scale, offset = (
            precise(conv(means)).unflatten(1, (self.num_heads, 2)).movedim(2, -1)
            for conv in (self.scales, self.offsets)
        )  # (B, H, rows, columns, 2)
        axes = [torch.arange(n, device=tokens.device, dtype=scale.dtype) for n in size]
        slot = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)
        middle = F.avg_pool2d(slot.movedim(-1, 0), window).movedim(0, -1)  # of each window
        reach = [(size[axis] - 1) / 2 / numbers[axis] for axis in (1, 0)]
        offset = torch.stack([offset[..., axis] * reach[axis] for axis in (0, 1)], -1)
        scale, offset, middle = (_of_slots(each, window) for each in (scale, offset, middle))
        return slot + scale * (slot - middle) + offset

    def _layout(self, grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return height and width of a window, and the numbers of windows below and beside each other."""
        window = min(self.window, grid[0]), min(self.window, grid[1])
        return window, (-(-grid[0] // window[0]), -(-grid[1] // window[1]))

    def _bias(self, window: tuple[int, int]) -> Tensor | None:
        """Return the bias (H, t, prefix + t) of a window's pairs; None without one."""
        if self.relative_bias is None:
            return None
        return F.pad(window_bias(self.relative_bias, window), (self.num_prefix_tokens, 0))

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N), each spread over the tokens that its value is interpolated from."""
        unit = torch.eye(v.shape[2], dtype=v.dtype, device=v.device).expand(*v.shape[:2], -1, -1)
        return self.mix(q, k, unit)


def _padded(tokens: Tensor, grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Return tokens of the grid (B, H, N, D) as (B, H, height, width, D), padded with zeros to whole windows."""
    image = tokens.unflatten(2, grid)
    return F.pad(image, (0, 0, 0, -grid[1] % window[1], 0, -grid[0] % window[0]))


def _windows(image: Tensor, window: tuple[int, int]) -> Tensor:
    """Return an image (B, H, height, width, D) in windows, (B, windows, H, t, D)."""
    parts = image.unflatten(3, (-1, window[1])).unflatten(2, (-1, window[0]))  # (B, H, rows, wh, columns, ww, D)
    return parts.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(1, 2)


def _unwindowed(mixed: Tensor, grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """Return windows (B, windows, H, t, D) as the tokens of the grid (B, H, N, D), without the padding."""
    rows = -(-grid[0] // window[0])
    parts = mixed.unflatten(3, window).unflatten(1, (rows, -1)).permute(0, 3, 1, 4, 2, 5, 6)
    return parts.flatten(4, 5).flatten(2, 3)[:, :, : grid[0], : grid[1]].flatten(2, 3)


def _of_slots(each: Tensor, window: tuple[int, int]) -> Tensor:
    """Return what each window has (..., rows, columns, 2) for each of its slots, (..., height, width, 2)."""
    return each.repeat_interleave(window[0], -3).repeat_interleave(window[1], -2)


def _sampled(image: Tensor, places: Tensor) -> Tensor:
    """Return an image (B, H, height, width, D) at ``places`` (B, H, height, width, 2), interpolated, 0 outside."""
    sizes = image.shape[3], image.shape[2]
    where = torch.stack([(2 * places[..., axis] + 1) / sizes[axis] - 1 for axis in (0, 1)], -1).flatten(0, 1)
    channels = image.movedim(-1, 2).flatten(0, 1).to(where.dtype)
    sampled = F.grid_sample(channels, where, align_corners=False).to(image.dtype)
    return sampled.unflatten(0, image.shape[:2]).movedim(2, -1)
