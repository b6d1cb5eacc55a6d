"""Twins: windows of images that are filled up with zeros; what reads the whole image at fewer places stays timm's."""

from typing import Any

import torch.nn.functional as F
from timm.models.twins import LocallyGroupedAttn
from torch import Tensor

from attention_zoo.hosts.base import HostLayer


class TwinsLayer(HostLayer, LocallyGroupedAttn):
    """A mixer in the place of the softmax of Twins' ``LocallyGroupedAttn``."""

    sees_grid = True

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int]:
        """Return height and width of the windows."""
        return layer.ws, layer.ws

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return tokens x (B, N, dim) of an image of this height and width mixed inside windows."""
        side, (height, width) = self.ws, size
        image = F.pad(x.unflatten(1, size), (0, 0, 0, -width % side, 0, -height % side))
        parts = image.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3)  # (B, rows, columns, w, w, dim)
        windows = parts.flatten(3, 4).flatten(0, 2)
        mixed = self.merge(self.mix(*self.split(self.qkv(windows)))).view(parts.shape)
        tokens = mixed.transpose(2, 3).flatten(1, 2).flatten(2, 3)[:, :height, :width].flatten(1, 2)
        return self.proj_drop(self.proj(tokens))
