"""Gemma 4's vision encoder: normalised queries, keys and values, rotary positions, scores that are not scaled."""

from typing import Any

from timm.models.gemma4_vit import Gemma4Attention, apply_multidimensional_rope
from torch import Tensor

from attention_zoo.hosts.base import HostLayer


class GemmaLayer(HostLayer, Gemma4Attention):
    """A mixer in the place of the softmax of ``Gemma4Attention``, whose queries may share keys and values in groups."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width, which may be another than the width of tokens gives."""
        return layer.num_heads, layer.head_dim

    def forward(self, x: Tensor, rope_cos: Tensor, rope_sin: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Return the tokens x (B, N, dim) mixed; cosines and sines of their positions turn queries and keys."""
        q, k, v = (
            norm(project(x).unflatten(-1, (-1, self.head_dim)))
            for project, norm in ((self.q_proj, self.q_norm), (self.k_proj, self.k_norm), (self.v_proj, self.v_norm))
        )
        q, k = (apply_multidimensional_rope(part, rope_cos, rope_sin, ndim=2, unsqueeze_dim=2) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q * self.head_dim**0.5, k, v))
        if self.num_kv_groups > 1:
            k, v = (part.repeat_interleave(self.num_kv_groups, 1) for part in (k, v))
        return self.proj_drop(self.o_proj(self.merge(self.mix(q, k, v, attn_mask))))
