"""EVA and DINOv3: rotary positions on queries and keys, which may have projections, norms and biases of their own."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor

from attention_zoo.hosts.base import HostLayer, joint_bias


class _RotaryLayer(HostLayer):
    """What both layers with rotary positions do around their softmax."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width, which may be another than the width of tokens gives."""
        return layer.num_heads, layer.head_dim

    def project(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, N, D) of tokens x (B, N, dim), from one projection or from three."""
        if self.qkv is not None:
            return self.split(self.qkv(x) if self.bias is None else F.linear(x, self.qkv.weight, self.bias))
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q, k, v

    @property
    def bias(self) -> Tensor | None:
        """The bias of the joint projection where it is no part of it."""
        return None

    def forward(
        self: Any, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Return the tokens x (B, N, dim) mixed; ``rope`` holds the positions of those after the prefix tokens."""
        q, k, v = self.project(x)
        q, k = (self.rotated(norm(part), rope).to(v.dtype) for norm, part in ((self.q_norm, q), (self.k_norm, k)))
        if k.shape[1] != q.shape[1]:  # each head of keys and values is for a group of those of queries
            k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], 1) for part in (k, v))
        mixed = self.norm(self.merge(self.mix(q, k, v, attn_mask, is_causal)))
        if self.gate is not None:
            mixed = mixed * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(mixed))

    def rotated(self: Any, part: Tensor, rope: Tensor | None) -> Tensor:
        """Return queries or keys (B, H, N, D) turned by their positions; prefix tokens have none."""
        if rope is None:
            return part
        prefix, grid = part.split((self.num_prefix_tokens, part.shape[2] - self.num_prefix_tokens), 2)
        return torch.cat((prefix, apply_rot_embed_cat(grid, rope, half=self.rotate_half)), 2)


class EvaLayer(_RotaryLayer, EvaAttention):
    """A mixer in the place of timm's ``EvaAttention``, whose keys have no bias."""

    @property
    def bias(self) -> Tensor | None:
        """The bias (3 * H * D) of queries, keys and values, zero for the keys; None without one."""
        return joint_bias(self)


class RopeLayer(_RotaryLayer, AttentionRope):
    """A mixer in the place of timm's ``AttentionRope``, whose queries may share keys and values in groups."""
