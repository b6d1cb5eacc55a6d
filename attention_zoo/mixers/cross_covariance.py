"""Cross-covariance attention: channels attend to channels, through the covariance of queries and keys.

    out = (softmax(tau q^^T k^) v^T)^T,    q^, k^ channels of unit length over the tokens

A. El-Nouby et al., XCiT: Cross-Covariance Image Transformers, NeurIPS 2021 (eq. 2).
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register


@register
class CrossCovariance(SelfMixer):
    """``V softmax(τ Q̂ᵀ K̂)ᵀ``: a D x D matrix of channels, linear in the tokens. timm's weights of XCiT load.

    Tokens meet only in the covariance. The values of other tokens are not read: with queries and keys held, a token
    takes from itself alone, and so says `attention_map`.

    Args:
        dim: token width.
        num_heads: heads.
        **host: see `SelfMixer`.
    """

    reading = "attention of channels"
    paper = "El-Nouby et al. 2021 (XCiT)"
    equation = "V softmax(τ Q̂ᵀ K̂)ᵀ (2)"
    complexity = "N"
    drops_attention = True

    def __init__(self, dim: int, num_heads: int = 8, **host: Unpack[HostOptions]) -> None:
        super().__init__(dim, num_heads, **host)
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1, **self.made))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        return v @ self.attn_drop(self.channel_weights(q, k)).to(v.dtype).mT

    def channel_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Return softmax(τ Q̂ᵀ K̂), (B, H, D, D): which channel reads which."""
        q, k = F.normalize(q, dim=2), F.normalize(k, dim=2)
        return (q.mT @ k * self.temperature).softmax(-1)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a diagonal map (B, H, N, N) that holds the mean weight of a channel on itself."""
        own = self.channel_weights(q, k).diagonal(dim1=-2, dim2=-1).mean(-1)  # (B, H)
        return torch.eye(q.shape[2], dtype=q.dtype, device=q.device) * own[..., None, None]
