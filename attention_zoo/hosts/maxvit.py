"""MaxViT and CoAtNet: attention in windows, in grids of distant places or over an image, with position biases."""

from typing import Any

from timm.models.maxxvit import Attention2d, AttentionCl
from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer
from attention_zoo.hosts.relpos import adds_relative_positions


class _MaxLayer(HostLayer):
    """What the layers for both orders of dimensions share: heads before or after queries, keys, values; biases."""

    sees_grid = True

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width."""
        return layer.num_heads, layer.dim_head

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return whether the layer has biases, or the model has some for all layers."""
        return adds_relative_positions(layer, model)

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int] | None:
        """Return height and width of the windows that the biases are for, or None without biases."""
        return getattr(layer.rel_pos, "window_size", None)

    def mixed(self: Any, qkv: Tensor, grid: tuple[int, int], shared: Tensor | None) -> Tensor:
        """Return the mixed tokens (B, N, H * D) of projections (B, N, 3 * H * D) of tokens of a grid."""
        self.mixer.set_grid(grid)
        if self.head_first:
            q, k, v = qkv.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).chunk(3, -1)
        else:
            q, k, v = self.split(qkv)
        return self.merge(self.mix(q, k, v, shared if self.rel_pos is None else self.rel_pos.get_bias()))


class AttentionClLayer(_MaxLayer, AttentionCl):
    """A mixer in the place of the softmax of ``AttentionCl``."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """Return windows x (B, height, width, dim) mixed, with the model's bias if the layer has none."""
        mixed = self.mixed(self.qkv(x).flatten(1, 2), (x.shape[1], x.shape[2]), shared_rel_pos)
        return self.proj_drop(self.proj(mixed.unflatten(1, x.shape[1:3])))


class Attention2dLayer(_MaxLayer, Attention2d):
    """A mixer in the place of the softmax of ``Attention2d``."""

    def forward(self, x: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        """Return images x (B, dim, height, width) mixed, with the model's bias if the layer has none."""
        mixed = self.mixed(self.qkv(x).flatten(2).mT, (x.shape[2], x.shape[3]), shared_rel_pos)
        return self.proj_drop(self.proj(mixed.mT.unflatten(2, x.shape[2:])))
