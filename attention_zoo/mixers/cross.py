"""The interface of mixers that read pixels into queries, as the mask decoder's layers do.

Shapes: B batch, M pixels, L queries, H heads, D width of a head, dim = H * D.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from attention_zoo.mixers.base import Mixer
from attention_zoo.mixers.options import TokenWidth, Width


class CrossMixer(Mixer):
    """Mixes pixels into queries: (B, L, dim), (B, M, dim) -> queries (B, L, dim) and logits (B, L, M).

    A subclass writes `weights`, how much each query takes from each pixel, and where it needs to `affinity`, `read` and
    `assign`. What the queries read is projected and added to them: ``C + proj(read)``.

    Args:
        dim: width of queries and pixels.
        num_heads: heads; must divide ``dim``.
        qkv_bias: whether the projections of queries, keys and values have a bias.
        device: where the parameters are made.
        dtype: type of the parameters.

    Raises:
        InputError: an argument does not fit; the error names the mixer and the argument.
    """

    def __init__(
        self,
        dim: TokenWidth,
        num_heads: Width = 8,
        *,
        qkv_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, num_heads, device, dtype)
        made = self.made
        self.scale = self.head_dim**-0.5
        self.q = nn.Linear(dim, dim, bias=qkv_bias, **made)
        self.k = nn.Linear(dim, dim, bias=qkv_bias, **made)
        self.v = nn.Linear(dim, dim, bias=qkv_bias, **made)
        self.proj = nn.Linear(dim, dim, **made)

    @abstractmethod
    def weights(self, affinity: Tensor) -> Tensor:
        """Return how much each query takes from each pixel, (B, H, L, M), from their affinity (B, H, L, M)."""

    def affinity(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the affinity ``q.k / √D`` (B, H, L, M) of queries (B, H, L, D) and keys (B, H, M, D)."""
        return q * self.scale @ k.mT

    def read(self, affinity: Tensor, v: Tensor) -> Tensor:
        """Return what the queries take from the values v (B, H, M, D), (B, H, L, D).

        It is public for decoders whose affinity is the mask logits of a predictor: (B, 1, L, M) serves all heads.
        """
        return self.weights(affinity).to(v.dtype) @ v

    def assign(self, affinity: Tensor) -> Tensor:
        """Return which query each pixel belongs to, (B, H, L, M); it sums to one over the queries."""
        return affinity.softmax(-2)

    def forward(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return updated queries (B, L, dim) and logits (B, L, M), the affinity with each pixel, mean over heads.

        Raises:
            InputError: shapes do not fit.
        """
        q, k, v = self.project(queries, pixels)
        affinity = self.affinity(q, k)
        mixed = self.read(affinity, v)
        return queries + self.proj(mixed.transpose(1, 2).flatten(2)), affinity.mean(1)

    def project(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, L, D), keys and values (B, H, M, D).

        They are projected from ``queries`` (B, L, dim) and ``pixels`` (B, M, dim).
        """
        fits = queries.dim() == 3 and queries.shape[-1] == self.dim
        self.check(fits, f"queries of shape {tuple(queries.shape)} are not (B, L, {self.dim})")
        fits = pixels.dim() == 3 and pixels.shape[::2] == queries.shape[::2]
        self.check(fits, f"pixels of shape {tuple(pixels.shape)} are not ({queries.shape[0]}, M, {self.dim})")
        parts = self.q(queries), self.k(pixels), self.v(pixels)
        q, k, v = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in parts)
        return q, k, v

    def attention_map(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Return who reads whom: (B, num_heads, L, M), entry (i, j) is how much query i takes from pixel j."""
        q, k, _ = self.project(queries, pixels)
        return self.weights(self.affinity(q, k))

    def assignments(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Return which query each pixel belongs to: (B, num_heads, L, M), soft or one-hot; columns sum to one."""
        q, k, _ = self.project(queries, pixels)
        return self.assign(self.affinity(q, k))
