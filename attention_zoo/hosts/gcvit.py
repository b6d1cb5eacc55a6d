"""GCViT: windows with biases, where queries may be those of the whole image, reduced to a window's size."""

from typing import Any

from timm.models.gcvit import WindowAttentionGlobal
from torch import Tensor, nn

from attention_zoo.hosts.windows import WindowLayer


class GcvitLayer(WindowLayer, WindowAttentionGlobal):
    """A mixer in the place of the softmax of GCViT's ``WindowAttentionGlobal``."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width."""
        return layer.num_heads, layer.head_dim

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return True: each pair of places in a window has a bias."""
        return True

    def forward(self, x: Tensor, q_global: Tensor | None = None) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed, with queries q_global (B, N, dim) for all of an image."""
        parts = self.qkv(x)
        if self.use_global and q_global is not None:
            asked = q_global.reshape(len(q_global), x.shape[1], x.shape[2])
            q = asked.repeat_interleave(len(x) // len(asked), 0).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            k, v = parts.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = self.split(parts)
        return self.proj_drop(self.proj(self.merge(self.mix(q, k, v, self.rel_pos.get_bias()))))
