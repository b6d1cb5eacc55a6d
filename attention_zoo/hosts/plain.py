"""timm's further layers of plain softmax attention: one projection, no biases, tokens in an order of their own."""

from typing import Any

from timm.models.convit import MHSA
from timm.models.davit import WindowAttention
from timm.models.fastvit import Attention as FastVitAttention
from timm.models.metaformer import Attention as MetaFormerAttention
from timm.models.nest import Attention as NestAttention
from timm.models.tnt import Attention as TntAttention
from timm.models.visformer import Attention as VisformerAttention
from timm.models.volo import Attention as VoloAttention
from torch import Tensor

from attention_zoo.hosts.base import HostLayer
from attention_zoo.hosts.windows import WindowLayer


class DavitLayer(WindowLayer, WindowAttention):
    """A mixer in the place of the softmax of DaViT's ``WindowAttention``; its ``ChannelAttention`` stays."""

    def forward(self, x: Tensor) -> Tensor:
        """Return windows x (windows * B, N, dim) mixed."""
        return self.proj(self.merge(self.mix(*self.split(self.qkv(x)))))


class MetaFormerLayer(HostLayer, MetaFormerAttention):
    """A mixer in the place of the softmax of MetaFormer's ``Attention``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens x (B, N, dim) mixed."""
        return self.proj_drop(self.proj(self.merge(self.mix(*self.split(self.qkv(x))))))


class ConvitLayer(HostLayer, MHSA):
    """A mixer in the place of the softmax of ConViT's ``MHSA``; its gated ``GPSA`` stays."""

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens x (B, N, dim) mixed."""
        return self.proj_drop(self.proj(self.merge(self.mix(*self.split(self.qkv(x))))))


class TntLayer(HostLayer, TntAttention):
    """A mixer in the place of the softmax of TNT's ``Attention``, of patches or of the pixels in one."""

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and the width of their queries."""
        return layer.num_heads, layer.head_dim

    @classmethod
    def obstacle(cls, layer: Any) -> str | None:
        """Return that values are of another width than queries, where they are."""
        return None if layer.v.out_features == layer.hidden_dim else "its values are of another width than its queries"

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens x (B, N, dim) mixed."""
        q, k = self.qk(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        v = self.v(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.proj_drop(self.proj(self.merge(self.mix(q, k, v))))


class NestLayer(HostLayer, NestAttention):
    """A mixer in the place of the softmax of NesT's ``Attention``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens x (B, blocks, N, dim) of each block mixed; in them heads are side by side."""
        mixed = self.mix(*self.split(self.qkv(x.flatten(0, 1)))).permute(0, 2, 3, 1).flatten(2)
        return self.proj_drop(self.proj(mixed.unflatten(0, x.shape[:2])))


class VoloLayer(HostLayer, VoloAttention):
    """A mixer in the place of the softmax of VOLO's ``Attention``; its ``OutlookAttention`` stays."""

    sees_grid = True

    def forward(self, x: Tensor) -> Tensor:
        """Return images x (B, height, width, dim) mixed."""
        self.mixer.set_grid((x.shape[1], x.shape[2]))
        mixed = self.merge(self.mix(*self.split(self.qkv(x.flatten(1, 2)))))
        return self.proj_drop(self.proj(mixed.unflatten(1, x.shape[1:3])))


class FastVitLayer(HostLayer, FastVitAttention):
    """A mixer in the place of the softmax of FastViT's ``Attention``."""

    sees_grid = True

    def forward(self, x: Tensor) -> Tensor:
        """Return images x (B, dim, height, width) mixed."""
        self.mixer.set_grid((x.shape[2], x.shape[3]))
        mixed = self.merge(self.mix(*self.split(self.qkv(x.flatten(2).mT))))
        return self.proj_drop(self.proj(mixed)).mT.unflatten(2, x.shape[2:])


class VisformerLayer(HostLayer, VisformerAttention):
    """A mixer in the place of the softmax of Visformer's ``Attention``."""

    sees_grid = True

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads and their width, which may be another than the width of tokens gives."""
        return layer.num_heads, layer.head_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return images x (B, dim, height, width) mixed, with the channels of a head side by side."""
        self.mixer.set_grid((x.shape[2], x.shape[3]))
        mixed = self.mix(*self.split(self.qkv(x).flatten(2).mT))
        return self.proj_drop(self.proj(mixed.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])))
