"""timm's vision transformers with relative positions, whose biases are a layer's own or the model's."""

from typing import Any

from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer


def adds_relative_positions(layer: Any, model: nn.Module) -> bool:
    """Return whether the layer has biases of relative positions, or the model has some for all layers."""
    shared = any(getattr(part, "shared_rel_pos", None) is not None for part in model.modules())
    return shared or layer.rel_pos is not None


class RelPosLayer(HostLayer, RelPosAttention):
    """A mixer in the place of the softmax of ``RelPosAttention``."""

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return whether the layer has biases, or the model has some for all layers."""
        return adds_relative_positions(layer, model)

    def forward(self: Any, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """Return the tokens x (B, N, dim) mixed, with the model's bias (1, H, N, N) if the layer has none."""
        q, k, v = self.split(self.qkv(x))
        bias = shared_rel_pos if self.rel_pos is None else self.rel_pos.get_bias()
        mixed = self.mix(self.q_norm(q), self.k_norm(k), v, bias)
        return self.proj_drop(self.proj(self.merge(mixed)))
