"""Channel attention of DaViT: channels of the queries are read through the similarity of keys and values.

    out = (softmax(k^T v / sqrt(d)) q^T)^T

M. Ding et al., DaViT: Dual Attention Vision Transformers, ECCV 2022 (eq. 4), in the order of the released code, which
timm has too: queries stand where the paper has values, and values where it has queries and keys.
"""

from torch import Tensor

from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.registry import register


@register
class ChannelAttention(SelfMixer):
    """``Q softmax(Kᵀ V / √d)ᵀ``: a D x D matrix of channels, linear in the tokens. timm's weights of DaViT load.

    Args:
        dim: token width.
        num_heads: groups of channels.
        **host: see `SelfMixer`.
    """

    reading = "attention of channels"
    paper = "Ding et al. 2022 (DaViT)"
    equation = "Q softmax(Kᵀ V/√d)ᵀ (4)"
    complexity = "N"

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        weights = (k.mT @ v * self.head_dim**-0.5).softmax(-1)  # (B, H, D, D)
        return q @ weights.to(q.dtype).mT
