"""BEiT: biases of relative positions, of the layer itself or of the model, class token included."""

from typing import Any

import torch.nn.functional as F
from timm.models.beit import Attention
from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer, joint_bias


class BeitLayer(HostLayer, Attention):
    """A mixer in the place of the softmax of BEiT's ``Attention``."""

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return whether the layer has biases, or the model has some for all layers."""
        shared = any(getattr(part, "rel_pos_bias", None) is not None for part in model.modules())
        return shared or layer.relative_position_bias_table is not None

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """Return the tokens x (B, N, dim) mixed, with biases of the model (1, H, N, N) if it has some."""
        q, k, v = self.split(F.linear(x, self.qkv.weight, joint_bias(self)))
        own = self.position_bias()
        both = [part for part in (own, shared_rel_pos_bias) if part is not None]
        mixed = self.mix(q, k, v, sum(both[1:], both[0]) if both else None)
        return self.proj_drop(self.proj(self.merge(mixed)))

    def position_bias(self) -> Tensor | None:
        """Return the layer's own bias (1, H, N, N) of each pair of tokens, if it has one."""
        table = self.relative_position_bias_table
        return None if table is None else table[self.relative_position_index].permute(2, 0, 1)[None]
