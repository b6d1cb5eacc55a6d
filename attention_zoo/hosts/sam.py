"""SAM's image encoder: windows or whole images, with biases of rows and columns that depend on the queries."""

from typing import Any

from timm.layers import apply_rot_embed_cat
from timm.models.vision_transformer_sam import Attention, get_decomposed_rel_pos_bias
from torch import Tensor, nn

from attention_zoo.hosts.base import HostLayer


class SamLayer(HostLayer, Attention):
    """A mixer in the place of the softmax of SAM's ``Attention``."""

    sees_grid = True

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return whether the layer has relative positions."""
        return layer.use_rel_pos

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int] | None:
        """Return height and width that the relative positions are for, or None without them."""
        if not layer.use_rel_pos:
            return None
        return (len(layer.rel_pos_h) + 1) // 2, (len(layer.rel_pos_w) + 1) // 2

    def forward(self: Any, x: Tensor) -> Tensor:
        """Return windows or images x (B, height, width, dim) mixed."""
        grid = x.shape[1], x.shape[2]
        self.mixer.set_grid(grid)
        q, k, v = self.split(self.qkv(x.flatten(1, 2)))
        q, k, bias = self.q_norm(q), self.k_norm(k), None
        if self.use_rel_pos:
            each = get_decomposed_rel_pos_bias(q.flatten(0, 1), self.rel_pos_h, self.rel_pos_w, grid, grid)
            bias = each.unflatten(0, q.shape[:2])
        elif self.rope is not None:
            q, k = (apply_rot_embed_cat(part, self.rope.get_embed()).to(v.dtype) for part in (q, k))
        mixed = self.proj_drop(self.proj(self.merge(self.mix(q, k, v, bias))))
        return mixed.unflatten(1, grid)
