"""Sparsifier: a cheap low-rank guess of the attention map says which keys each query reads.

    guess = softmax((q W_q)(P^T k W_k)^T / sqrt(H)) B^T,    J_i = top keep * N of guess_i
    out_i = sum_{j in J_i} softmax_{j in J_i}(q_i.k_j / sqrt(d)) v_j

P and B (N, N / reduce) mix tokens of the grid. The choice J has no gradient; the guess learns from the mean squared
difference to the full map. C. Wei, B. Duke, R. Jiang, P. Aarabi, G. W. Taylor, F. Shkurti, Sparsifiner: Learning Sparse
Instance-Dependent Attention for Efficient Vision Transformers, CVPR 2023 (eq. 3 to 8).
"""

import math
from typing import Annotated, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import Domain, PositiveInt
from attention_zoo.functional.attention import softmax_attention
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.losses import joined
from attention_zoo.mixers.options import Amount
from attention_zoo.mixers.registry import register

Share = Annotated[float, Domain(above=0, most=1)]
"""The share of something that is kept, from above 0 to all of it."""

LEAST = 4
"""The fewest keys that a query reads, so that a softmax over them can learn."""


@register
class Sparsifier(SelfMixer):
    """Softmax attention of each query over the share of the keys that a low-rank guess of its weights finds largest.

    The guess is made and masked as a matrix: cost in time and memory is N², as in the released code, and what is saved
    are the keys read. Prefix tokens read all tokens. In training the loss of the guess joins the backward pass
    (`losses.joined`). Where the grid changes, P and B are resampled bilinearly.

    Args:
        dim: token width.
        num_heads: heads.
        keep: share of the tokens that a query reads, rounded up; it reads at least `LEAST`.
        reduce_tokens: how many times fewer than tokens the rank of the guess is.
        reduce_width: how many times narrower than a head the guess' queries and keys are.
        guess: factor of the loss of the guess.
        **host: see `SelfMixer`; ``grid`` is needed, and ``num_prefix_tokens`` if there are any.
    """

    reading = "kernel smoothing, over keys that a guess chooses"
    paper = "Wei et al. 2023 (Sparsifiner)"
    equation = "softmax_{top of the guess}(Q Kᵀ/√d) V"
    complexity = "N²"
    drops_attention = True
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        keep: Share = 0.25,
        reduce_tokens: PositiveInt = 8,
        reduce_width: PositiveInt = 2,
        guess: Amount = 1.0,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.check(self.grid is not None, "the guess is made for a grid; give grid=(height, width)")
        self.keep, self.guess, made = keep, guess, self.made
        width = max(1, self.head_dim // reduce_width)
        number = self.num_prefix_tokens + math.prod(self.grid or ())
        rank = max(2, number // reduce_tokens)
        self.guess_q, self.guess_k = nn.Linear(self.head_dim, width, **made), nn.Linear(self.head_dim, width, **made)
        self.basis_in, self.basis_out = (nn.Parameter(0.02 * torch.randn((number, rank), **made)) for _ in range(2))
        self.learned_grid = self.grid

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        guessed = self.guessed(q, k)
        dropout = self.attn_drop.p if self.training else 0.0
        mixed = softmax_attention(q, k, v, self.chosen(guessed), dropout)
        return joined(mixed, self.loss(guessed, q, k)) if self.training and guessed.numel() else mixed

    def loss(self, guessed: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return the loss of the guess, a scalar; it alone learns from it."""
        weights = (q.detach() @ k.detach().mT * self.head_dim**-0.5).softmax(-1)
        return self.guess * F.mse_loss(guessed, weights[:, :, self.num_prefix_tokens :])

    def guessed(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the guess of the weights (B, H, N - prefix, N) of the grid's tokens; only it learns from this."""
        q, k = self.guess_q(q.detach()[:, :, self.num_prefix_tokens :]), self.guess_k(k.detach())
        into, out = (self.on_grid(basis, k.shape[2]).to(k.dtype) for basis in (self.basis_in, self.basis_out))
        return (q @ (into.mT @ k).mT * self.num_heads**-0.5).softmax(-1) @ out.mT

    def on_grid(self, basis: Tensor, number: int) -> Tensor:
        """Return P or B (number, rank) for the present grid of ``number`` tokens, prefix included."""
        grid = self.spatial_shape(number)
        if grid == self.learned_grid:
            return basis
        prefix, image = basis[: self.num_prefix_tokens], basis[self.num_prefix_tokens :].T
        resized = F.interpolate(
            image.unflatten(-1, self.learned_grid)[None], grid, mode="bilinear", align_corners=False
        )
        return torch.cat((prefix, resized[0].flatten(1).T))

    def chosen(self, guessed: Tensor) -> Tensor:
        """Return who may read whom, (B, H, N, N) bool."""
        number = guessed.shape[-1]
        with torch.no_grad():
            least = min(LEAST, number)
            kept = guessed.topk(max(math.ceil(self.keep * number), least), -1).indices
            allowed = torch.zeros_like(guessed, dtype=torch.bool).scatter(-1, kept, True)
            return F.pad(allowed, (0, 0, self.num_prefix_tokens, 0), value=True)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax weights (B, H, N, N), zero where a key is not read."""
        allowed = self.chosen(self.guessed(q, k))
        return (q @ k.mT * self.head_dim**-0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
