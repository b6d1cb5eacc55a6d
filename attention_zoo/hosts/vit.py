"""Vision transformers whose attention no mixer replaces as a whole: gated, or with heads of a width of their own."""

from typing import Any

from timm.layers import Attention
from torch import Tensor

from attention_zoo.hosts.base import HostLayer


class VitLayer(HostLayer, Attention):
    """A mixer in the place of the softmax of timm's ``Attention``."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width, which may be another than the width of tokens gives."""
        return layer.num_heads, layer.head_dim

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the tokens x (B, N, dim) mixed, and gated where the layer has a gate."""
        q, k, v = self.split(self.qkv(x))
        mixed = self.norm(self.merge(self.mix(self.q_norm(q), self.k_norm(k), v, attn_mask, is_causal)))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(mixed))
