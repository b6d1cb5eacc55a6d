"""TinyViT: windows with biases of absolute distances, normalised inside the layer."""

from typing import Any

from timm.models.tiny_vit import Attention
from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer


class TinyVitLayer(HostLayer, Attention):
    """A mixer in the place of the softmax of TinyViT's ``Attention``."""

    sees_grid = True

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and the width of their keys."""
        return layer.num_heads, layer.key_dim

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return True: each distance in a window has a bias."""
        return True

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int]:
        """Return height and width of the windows."""
        height, width = layer.resolution
        return height, width

    @classmethod
    def obstacle(cls, layer: Any) -> str | None:
        """Return that values are of another width than keys, where they are."""
        return None if layer.val_dim == layer.key_dim else "its values are of another width than its keys"

    def forward(self: Any, x: Tensor) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed."""
        parts = self.qkv(self.norm(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        bias = self.attention_biases[:, self.attention_bias_idxs][None]
        return self.proj(self.merge(self.mix(*parts.chunk(3, -1), bias)))
