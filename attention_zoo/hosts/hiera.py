"""Hiera, also that of SAM 2: windows, or whole images, between stages; layers that pool their queries stay timm's."""

from typing import Any

from timm.models.hiera import MaskUnitAttention
from timm.models.hieradet_sam2 import MultiScaleAttention
from torch import Tensor

from attention_zoo.hosts.base import HostLayer

POOLS = "it pools its queries between two stages, and readings mix one set of tokens"


class HieraLayer(HostLayer, MaskUnitAttention):
    """A mixer in the place of the softmax of Hiera's ``MaskUnitAttention``."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width."""
        return layer.heads, layer.head_dim

    @classmethod
    def obstacle(cls, layer: Any) -> str | None:
        """Return that queries are pooled, where they are."""
        return POOLS if layer.q_stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens x (B, N, dim) mixed inside mask units, whose tokens lie far apart, or all together."""
        units = x.shape[1] // self.window_size if self.use_mask_unit_attn else 1
        parts = self.qkv(x).unflatten(1, (-1, units)).transpose(1, 2)  # (B, units, N / units, 3 * H * D)
        mixed = self.merge(self.mix(*self.split(parts.flatten(0, 1))))
        return self.proj(mixed.unflatten(0, (-1, units)).transpose(1, 2).flatten(1, 2))


class Sam2Layer(HostLayer, MultiScaleAttention):
    """A mixer in the place of the softmax of the ``MultiScaleAttention`` of SAM 2's Hiera."""

    sees_grid = True

    @classmethod
    def obstacle(cls, layer: Any) -> str | None:
        """Return that queries are pooled, where they are."""
        return POOLS if layer.q_pool is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Return windows or images x (B, height, width, dim) mixed."""
        grid = x.shape[1], x.shape[2]
        self.mixer.set_grid(grid)
        return self.proj(self.merge(self.mix(*self.split(self.qkv(x.flatten(1, 2)))))).unflatten(1, grid)
