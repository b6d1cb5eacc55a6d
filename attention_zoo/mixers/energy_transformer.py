"""Energy attention: a step down an energy that is low where every token's query fits some token's key.

    E(x) = -1/s sum_h sum_i log sum_j exp(s q_hi.k_hj),    q_h = W_q,h x,  k_h = W_k,h x,  s = 1 / sqrt(d)
    out = -dE/dx = sum_h W_q,h^T (A_h K_h) + W_k,h^T (A_h^T Q_h),    A = softmax(s Q K^T)

B. Hoover, Y. Liang, B. Pham, R. Panda, H. Strobelt, D. H. Chau, M. J. Zaki, D. Krotov, Energy Transformer, NeurIPS 2023
(eq. 4, 7).
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attention_zoo.functional.attention import attend
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.registry import register

STEP = 0.1
"""The step after which the premise looks at the energy again, that of the released code."""


@register
class EnergyTransformer(SelfMixer):
    """``W_qᵀ (A K) + W_kᵀ (Aᵀ Q)``: tokens move to those they ask for and to those that ask for them.

    There are no values and no output projection: the update is minus the gradient of the energy by the tokens that
    come in, and the residual of the block is the step. It takes two fused passes, in float32 also under autocast. A
    top-down signal enters what is read, not who reads whom.

    Args:
        dim: token width.
        num_heads: heads.
        **host: see `SelfMixer`.
    """

    reading = "descent on an energy"
    paper = "Hoover et al. 2023"
    equation = "−∂E/∂x, E = −1/s Σ log Σ exp(s q·k)"
    complexity = "N²"
    projections = ()
    premise = "The update lowers the energy of the tokens."

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        bias = host.get("qkv_bias", False)
        self.query = nn.Linear(dim, dim, bias=bias, **self.made)
        self.key = nn.Linear(dim, dim, bias=bias, **self.made)
        self.scale = self.head_dim**-0.5

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the update (B, H, N, D) of tokens q (B, H, N, D) that read tokens v; k is not used.

        Both are the channels of tokens, shared out among the heads; they differ where a signal enters v.
        """
        kind = v.dtype
        with torch.autocast(q.device.type, enabled=False):
            asking, content = (self._tokens(x) for x in (q, v))
            queries, keys = self._part(self.query, asking), self._part(self.key, asking)
            read, log_sum = attend(queries, keys, self._part(self.key, content), self.scale)
            asked = self._part(self.query, content)
            told, log_mass = attend(keys, queries, asked, self.scale, key_bias=-log_sum)
            told = told * log_mass.exp()[..., None]
            out = self._back(self.query, read) + self._back(self.key, told)
        return out.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).to(kind)

    def energy(self, x: Tensor) -> Tensor:
        """Return the energy (B,) of tokens x (B, N, dim)."""
        x = precise(x)
        queries, keys = self._part(self.query, x), self._part(self.key, x)
        return -attend(queries, keys, keys, self.scale)[1].sum((1, 2)) / self.scale

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what tokens take from each head's channels, (B, H, N, N): A and Aᵀ of all heads, weighted.

        The weights are those of a channel in one head for the same channel of all heads together.
        """
        x = self._tokens(q)
        queries, keys = self._part(self.query, x), self._part(self.key, x)
        weights = (queries @ keys.mT * self.scale).softmax(-1)
        heads = (self.num_heads, self.head_dim)
        asks, answers = (
            linear.weight.to(weights.dtype).unflatten(1, heads).unflatten(0, heads)  # (head, d, head in, channel in)
            for linear in (self.query, self.key)
        )
        read = torch.einsum("gdfc,gdhc->gh", asks, answers) / self.head_dim
        told = torch.einsum("gdfc,gdhc->gh", answers, asks) / self.head_dim
        return torch.einsum("gh,bgij->bhij", read, weights) + torch.einsum("gh,bgji->bhij", told, weights)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return the energy of a token, mean over tokens, after a step of 0.1 down and before it, (B, 1) each.

        The tokens are those that come in, after the norm of the block; the step is taken there.
        """
        x = self._tokens(q)
        moved = x + STEP * self._tokens(self.mix(q, q, q))
        after, before = (self.energy(tokens)[:, None] / x.shape[1] for tokens in (moved, x))
        return {"energy of a token": Measure(after, before, "lower")}

    def _tokens(self, x: Tensor) -> Tensor:
        """Return heads (B, H, N, D) as tokens (B, N, dim), in float32 or wider."""
        return precise(x).transpose(1, 2).flatten(2)

    def _part(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """Return the projections (B, H, N, D) of tokens x (B, N, dim), in their type."""
        bias = None if linear.bias is None else linear.bias.to(x.dtype)
        projected = nn.functional.linear(x, linear.weight.to(x.dtype), bias)
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _back(self, linear: nn.Linear, heads: Tensor) -> Tensor:
        """Return the transposed projection (B, N, dim) of what heads (B, H, N, D) have."""
        return heads.transpose(1, 2).flatten(2) @ linear.weight.to(heads.dtype)
