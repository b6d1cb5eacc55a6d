"""Swin: attention in shifted windows with a learned bias for each relative position."""

from typing import Any

from timm.models.swin_transformer import WindowAttention
from torch import Tensor

from attention_zoo.hosts.windows import SwinFamilyLayer, with_mask


class SwinLayer(SwinFamilyLayer, WindowAttention):
    """A mixer in the place of the softmax of Swin's ``WindowAttention``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed under the masks (windows, N, N) of shifted windows."""
        q, k, v = self.split(self.qkv(x))
        mixed = self.mix(q, k, v, with_mask(self.position_bias(), mask, len(x)))
        return self.proj_drop(self.proj(self.merge(mixed)))

    def position_bias(self: Any) -> Tensor:
        """Return the bias (1, H, N, N) of each pair of places."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
