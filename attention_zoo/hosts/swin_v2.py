"""Swin V2: cosine attention in shifted windows, with biases that a network makes of logarithms of distances."""

import math

import torch.nn.functional as F
from timm.models.swin_transformer_v2 import WindowAttention
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor

from attention_zoo.hosts.base import joint_bias
from attention_zoo.hosts.windows import SwinFamilyLayer, with_mask

LARGEST_SCALE = math.log(100)
"""The most that the logarithm of the factor of cosines may be."""


def cosine_queries(q: Tensor, log_scale: Tensor) -> Tensor:
    """Return queries (B, H, N, D) of unit length, times the factor of cosines and the ``√D`` that mixers divide by."""
    return F.normalize(q, dim=-1) * log_scale.reshape(-1, 1, 1).clamp(max=LARGEST_SCALE).exp() * q.shape[-1] ** 0.5


class SwinV2Layer(SwinFamilyLayer, WindowAttention):
    """A mixer in the place of the softmax of Swin V2's ``WindowAttention``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed under the masks (windows, N, N) of shifted windows."""
        q, k, v = self.split(F.linear(x, self.qkv.weight, joint_bias(self)))
        q, k = cosine_queries(q, self.logit_scale).to(v.dtype), F.normalize(k, dim=-1).to(v.dtype)
        mixed = self.mix(q, k, v, with_mask(self.position_bias(), mask, len(x)))
        return self.proj_drop(self.proj(self.merge(mixed)))

    def position_bias(self) -> Tensor:
        """Return the bias (1, H, N, N) of each pair of places."""
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        return 16 * table[self.relative_position_index].permute(2, 0, 1)[None].sigmoid()


class SwinV2CrLayer(SwinFamilyLayer, WindowMultiHeadAttention):
    """A mixer in the place of the softmax of ``WindowMultiHeadAttention``, of Swin V2 by another hand."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed under the masks (windows, N, N) of shifted windows."""
        q, k, v = self.split(self.qkv(x))
        q, k = cosine_queries(q, self.logit_scale).to(v.dtype), F.normalize(k, dim=-1).to(v.dtype)
        mixed = self.mix(q, k, v, with_mask(self.position_bias(), mask, len(x)))
        return self.proj_drop(self.proj(self.merge(mixed)))

    def position_bias(self) -> Tensor:
        """Return the bias (1, H, N, N) of each pair of places."""
        area = self.window_size[0] * self.window_size[1]
        return self.meta_mlp(self.relative_coordinates_log).T.reshape(1, -1, area, area)
