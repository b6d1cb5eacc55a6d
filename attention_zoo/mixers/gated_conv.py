"""The gated CNN block: a depthwise convolution of some channels, gated by others; no attention at all.

    [g, i, c] = W_1 x,    out = W_2 (GELU(g) * [i, DWConv_7(c)])

W. Yu, X. Wang, MambaOut: Do We Really Need Mamba for Vision?, CVPR 2025 (eq. 5; Algorithm 1).
"""

from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.options import KernelSide, Ratio
from attention_zoo.mixers.registry import register


@register
class GatedConv(SelfMixer):
    """``W₂ (GELU(g) ∘ [i, DWConv₇(c)])``, what Mamba's block is without its state space.

    The weights of timm's ``GatedConvBlock`` load, but for its norm, which is the host's here (``norm.*``).

    A prefix token has no neighbours: the grid's mean of c stands for them, so that it reads the image. The grid does
    not read prefix tokens. The map tells what a token takes from i and c of the tokens, its gate held.

    Args:
        dim: token width.
        num_heads: groups of channels that `attention_map` tells apart; the convolution does not.
        expansion: width of g, and of i and c together, over ``dim``.
        kernel: side of the depthwise convolution's kernel, odd.
        conv_ratio: width of c over ``dim``.
        **host: see `SelfMixer`.
    """

    reading = "gated convolution"
    paper = "Yu and Wang 2025 (MambaOut)"
    equation = "W₂ (GELU(g) ∘ [i, DWConv₇(c)])"
    complexity = "N"
    projections = ()
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        expansion: Ratio = 8 / 3,
        kernel: KernelSide = 7,
        conv_ratio: Ratio = 1.0,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        hidden, convolved = int(expansion * dim), int(conv_ratio * dim)
        self.check(kernel % 2 == 1, f"kernel={kernel} must be odd")
        fits = 0 < convolved <= hidden
        self.check(fits, f"conv_ratio={conv_ratio} must convolve 1 to {hidden} channels (expansion={expansion})")
        made = self.made
        self.hidden, self.convolved = hidden, convolved
        self.fc1 = nn.Linear(dim, 2 * hidden, **made)
        self.conv = nn.Conv2d(convolved, convolved, kernel, padding=kernel // 2, groups=convolved, **made)
        self.fc2 = nn.Linear(hidden, dim, **made)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed tokens (B, H, N, D), from tokens as gates q and as content v, both (B, H, N, D)."""
        asking, content = (heads.transpose(1, 2).flatten(2) for heads in (q, v))  # (B, N, dim)
        weight, bias = self.fc1.weight, self.fc1.bias
        gate = F.gelu(F.linear(asking, weight[: self.hidden], bias[: self.hidden]))
        passed, near = F.linear(content, weight[self.hidden :], bias[self.hidden :]).split(
            (self.hidden - self.convolved, self.convolved), -1
        )
        mixed = self.fc2(gate * torch.cat((passed, self.convolve(near)), -1))
        return mixed.to(v.dtype).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def convolve(self, c: Tensor) -> Tensor:
        """Return the depthwise convolution (B, N, channels) of c (B, N, channels)."""
        prefix = self.num_prefix_tokens
        height, width = self.spatial_shape(c.shape[1])
        grid = c[:, prefix:].transpose(1, 2)  # (B, channels, grid)
        convolved = self.conv(grid.unflatten(-1, (height, width))).flatten(2).transpose(1, 2)
        if not prefix:
            return convolved
        # of an image that is its own mean everywhere
        first = self.conv.weight.sum((1, 2, 3)) * grid.mean(-1) + cast(Tensor, self.conv.bias)
        return torch.cat((first[:, None].expand(-1, prefix, -1).to(convolved.dtype), convolved), 1)
