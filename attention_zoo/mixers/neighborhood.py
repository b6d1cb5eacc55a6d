"""Neighbourhood attention: every token reads the k x k tokens nearest to it, dilated if wanted.

    out_i = sum_{j in rho_k(i)} softmax_j(q_i.k_j / sqrt(d)) v_j

A. Hassani, S. Walton, J. Li, S. Li, H. Shi, Neighborhood Attention Transformer, CVPR 2023 (eq. 2 to 4);
A. Hassani, H. Shi, Dilated Neighborhood Attention Transformer, 2022 (eq. 5 to 7).
"""

from collections.abc import Callable
from typing import Literal, Unpack

from torch import Tensor

from attention_zoo.domains import PositiveInt
from attention_zoo.functional.tiles import Tiling, attend_in_tiles, neighborhood_tiling, weights_in_tiles
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register


@register
class Neighborhood(SelfMixer):
    """Softmax attention over each token's neighbourhood, which moves inward at the borders of the grid.

    So every token reads as many tokens as any other. A grid smaller than the kernel is read whole, which a warning says
    where it is known; a grid smaller than ``kernel * dilation`` has fewer neighbours. Prefix tokens read all tokens and
    are read by all.

    Args:
        dim: token width.
        num_heads: heads.
        kernel: height and width of a neighbourhood; odd.
        dilation: distance of neighbours in each axis.
        engine: "tiles", ours, or "natten", the kernels of the package of that name where it is installed: the same
            numbers, without prefix tokens and attention dropout, on grids of at least ``kernel * dilation`` a side.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, in neighbourhoods"
    paper = "Hassani et al. 2023 (NAT)"
    equation = "softmax_{ρ(i)}(Q Kᵀ/√d) V"
    complexity = "N k²"
    drops_attention = True
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        kernel: PositiveInt = 7,
        dilation: PositiveInt = 1,
        engine: Literal["tiles", "natten"] = "tiles",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(kernel % 2 == 1, f"kernel={kernel} must be odd")
        self.kernel, self.dilation, self.engine = kernel, dilation, engine
        if dilation == 1:
            self.warn_if_covered("kernel", kernel)
        if engine == "natten":
            _na2d(self)
            fits = not self.num_prefix_tokens and not self.attn_drop.p
            self.check(fits, "engine='natten' has no prefix tokens and no attn_drop; take engine='tiles'")

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        if self.engine == "natten":
            return self.mix_by_natten(q, k, v)
        dropout = self.attn_drop.p if self.training else 0.0
        return attend_in_tiles(q, k, v, self.tiling(q), prefix=self.num_prefix_tokens, dropout=dropout)

    def mix_by_natten(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Mix as `mix` does, by NATTEN's kernels."""
        grid, reach = self.spatial_shape(q.shape[2]), self.kernel * self.dilation
        self.check(min(grid) >= reach, f"engine='natten' needs a grid of {reach} or more a side, not {grid}")
        q, k, v = (part.transpose(1, 2).unflatten(1, grid) for part in (q, k, v))  # (B, h, w, H, D)
        mixed = _na2d(self)(q, k, v, kernel_size=self.kernel, dilation=self.dilation, scale=self.head_dim**-0.5)
        return mixed.flatten(1, 2).transpose(1, 2)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N), zero outside of a token's neighbourhood."""
        return weights_in_tiles(q, k, self.tiling(q), prefix=self.num_prefix_tokens)

    def tiling(self, q: Tensor) -> Tiling:
        """Return the neighbourhoods, as tiles, of the grid that the tokens of q (B, H, N, D) form."""
        kernel, dilation = (self.kernel,) * 2, (self.dilation,) * 2
        return neighborhood_tiling(self.spatial_shape(q.shape[2]), kernel, dilation, q.device)


def _na2d(mixer: Neighborhood) -> Callable[..., Tensor]:
    """Return NATTEN's function.

    Raises:
        InputError: the package is not installed, or has no such function.
    """
    try:
        from natten import na2d
    except ImportError as error:
        raise mixer.refusal("engine='natten' needs the package natten (0.20 or newer), or take 'tiles'") from error
    return na2d
