"""Agent attention: a few agents, pooled from the queries, read for all tokens and are read by all.

    out = softmax(q a^T / sqrt(d) + B_2) softmax(a k^T / sqrt(d) + B_1) v + DWConv(v),    a = pool(q)

D. Han, T. Ye, Y. Han, Z. Xia, S. Pan, P. Wan, S. Song, G. Huang, Agent Attention: On the Integration of Softmax and
Linear Attention, ECCV 2024 (eq. 4, 5, 6).
"""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.attention import softmax_attention
from attention_zoo.functional.depthwise import convolution_map, convolve_grid
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import Grid, KernelSide, Number
from attention_zoo.mixers.registry import register

COARSE = 7
"""Height and width of the coarse part of the position biases, which is resampled to the grid."""


@register
class Agent(SelfMixer):
    """``softmax(Q Aᵀ) softmax(A Kᵀ) V`` with agents A pooled from the queries; linear in the tokens.

    Position biases are a coarse map resampled to the grid, plus one of its rows and one of its columns; all start at
    zero. On another grid than the layer was built for, those of rows and columns are resampled too. Prefix tokens
    have no part in the agents; each side has one bias for all of them. The released layer's weights load.

    Args:
        dim: token width.
        num_heads: heads.
        agents: number of agents, a square.
        kernel: side of the depthwise convolution's kernel, odd.
        bias_grid: height and width of the grid that biases of rows and columns are for, where there is no ``grid``.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, through agents"
    paper = "Han et al. 2024"
    equation = "softmax(Q Aᵀ/√d + B₂) softmax(A Kᵀ/√d + B₁) V + DWConv(V)"
    complexity = "N"
    drops_attention = True
    tokens = "grid"
    an_bias: nn.Parameter
    na_bias: nn.Parameter
    ah_bias: nn.Parameter
    aw_bias: nn.Parameter
    ha_bias: nn.Parameter
    wa_bias: nn.Parameter
    ac_bias: nn.Parameter
    ca_bias: nn.Parameter

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        agents: Number = 49,
        kernel: KernelSide = 3,
        bias_grid: Grid = (14, 14),
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        side = math.isqrt(agents)
        self.check(side * side == agents, f"agents={agents} must be a square such as 49")
        self.check(kernel % 2 == 1, f"kernel={kernel} must be odd")
        self.side = side
        if self.grid and math.prod(self.grid) < agents:
            self.warn(
                f"agents={agents} are more than the tokens of the grid {self.grid}: several are means of the same"
            )
        height, width = self.grid or bias_grid
        shapes = {
            "an_bias": (num_heads, agents, COARSE, COARSE),
            "na_bias": (num_heads, agents, COARSE, COARSE),
            "ah_bias": (1, num_heads, agents, height, 1),
            "aw_bias": (1, num_heads, agents, 1, width),
            "ha_bias": (1, num_heads, height, 1, agents),
            "wa_bias": (1, num_heads, 1, width, agents),
        }
        if self.num_prefix_tokens:
            shapes |= {"ac_bias": (1, num_heads, agents, 1), "ca_bias": (1, num_heads, 1, agents)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, **self.made)))
        self.dwc = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim, **self.made)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        grid, dropout = self.spatial_shape(q.shape[2]), self.attn_drop.p if self.training else 0.0
        agents = self.agents(q, grid)
        agents_read, tokens_read = (bias.to(q.dtype) for bias in self.position_biases(grid))
        gathered = softmax_attention(agents, k, v, agents_read, dropout)  # (B, H, A, D)
        out = softmax_attention(q, agents, gathered, tokens_read, dropout)
        return out + convolve_grid(self.dwc, v, grid)

    def agents(self, q: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the agents (B, H, A, D), the mean queries of A parts of the grid."""
        image = q[:, :, self.num_prefix_tokens :].transpose(2, 3).flatten(1, 2).unflatten(-1, grid)
        pooled = F.adaptive_avg_pool2d(image, self.side).flatten(2)
        return pooled.unflatten(1, q.shape[1::2]).transpose(2, 3)

    def position_biases(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the biases B_1 (1, H, A, N) of the agents' reading and B_2 (1, H, N, A) of the tokens' reading."""
        rows = _along(self.ah_bias[0], (grid[0], 1)), _along(self.ha_bias[0].permute(0, 3, 1, 2), (grid[0], 1))
        columns = _along(self.aw_bias[0], (1, grid[1])), _along(self.wa_bias[0].permute(0, 3, 1, 2), (1, grid[1]))
        coarse = _along(self.an_bias, grid), _along(self.na_bias, grid)
        first, second = ((a + b + c).flatten(2)[None] for a, b, c in zip(coarse, rows, columns, strict=True))
        prefix = self.num_prefix_tokens
        if prefix:
            first = torch.cat((self.ac_bias.expand(-1, -1, -1, prefix), first), -1)
            second = torch.cat((self.ca_bias.mT.expand(-1, -1, -1, prefix), second), -1)
        return first, second.mT

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the map (B, H, N, N): what tokens take through the agents, plus the convolution's mean kernel."""
        grid = self.spatial_shape(q.shape[2])
        agents, scale = self.agents(q, grid), self.head_dim**-0.5
        agents_read, tokens_read = self.position_biases(grid)
        read = (agents @ k.mT * scale + agents_read).softmax(-1)
        taken = (q @ agents.mT * scale + tokens_read).softmax(-1)
        return taken @ read + convolution_map(self.dwc, self.num_heads, grid, self.num_prefix_tokens)


def _along(bias: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a bias (H, A, height, width) resampled to the grid ``size``."""
    return bias if bias.shape[2:] == size else F.interpolate(bias, size, mode="bilinear")
