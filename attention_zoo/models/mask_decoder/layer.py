"""One layer of the mask decoder: queries meet pixels by a cross-mixer, then each other.

The layer of kMaX-DeepLab (Q. Yu et al., ECCV 2022) around any cross-mixer of the zoo. The affinity of queries and
pixels is at once the layer's mask prediction, which the losses supervise, and what the mixer reads by, so that two
interactions differ in what they make of the affinity (softmax over pixels, softmax or arg-max over queries) and in
nothing else. With one head this is the released k-means layer, where the predictor's kernels, features and values are
the mixer's projections of queries, refined pixels and pixels, normalised in between.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.functional.precision import precise
from attention_zoo.mixers.cross import CrossMixer
from attention_zoo.models.mask_decoder.outputs import MaskPrediction
from attention_zoo.models.mask_decoder.parts import (
    ClassHead,
    ConvNorm,
    LinearNorm,
    MapNorm,
    PixelHead,
    TokenNorm,
    drop_path,
)


class CrossMixerFactory(Protocol):
    """Anything that builds a cross-mixer: its class, a partial of one, or a choice in a config."""

    def __call__(self, dim: int, num_heads: int) -> CrossMixer:
        """Build and return the mixer for queries and pixels of width ``dim`` in ``num_heads`` heads."""


class Interaction(nn.Module):
    """A cross-mixer with the batch normalisations of the mask transformers around its projections.

    Args:
        mixer: the cross-mixer, which gives the projections, the affinity and the reading by it.
        mask_gain: gain of the normalised affinity before training.
    """

    def __init__(self, mixer: CrossMixer, mask_gain: float = 0.1) -> None:
        super().__init__()
        self.mixer = mixer
        self.q_norm, self.k_norm, self.v_norm, self.read_norm = (TokenNorm(mixer.dim) for _ in range(4))
        self.affinity_norm = MapNorm(mixer.num_heads)
        nn.init.constant_(self.affinity_norm.weight, mask_gain)
        self.update_norm = TokenNorm(mixer.dim, gain=0.0)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Let queries (B, L, dim) read from pixels, given twice (B, M, dim): refined for the keys, and for the values.

        Returns:
            The update (B, L, dim) of the queries, without the residual; the affinity (B, H, L, M), normalised; and the
            pixels' embedding (B, M, dim), of unit length, that the affinity comes from.
        """
        mixer = self.mixer
        q, k, v = self.q_norm(mixer.q(queries)), self.k_norm(mixer.k(keys)), self.v_norm(mixer.v(values))
        q, k, v = (x.unflatten(-1, (mixer.num_heads, mixer.head_dim)).transpose(1, 2) for x in (q, k, v))
        unit = F.normalize(k, dim=-1)
        affinity = self._normalised(mixer.affinity(q, unit * mixer.head_dim**0.5))  # of length √D, as queries have
        read = mixer.read(affinity, v).transpose(1, 2).flatten(2)
        update = self.update_norm(mixer.proj(self.read_norm(read)))
        return update, affinity, unit.transpose(1, 2).flatten(2) * mixer.num_heads**-0.5

    def _normalised(self, affinity: Tensor) -> Tensor:
        """Return the affinity (B, H, L, M), normalised by head; if it is stored pixel by pixel, it stays so."""
        by_pixel = affinity.mT
        return self.affinity_norm(by_pixel).mT if by_pixel.is_contiguous() else self.affinity_norm(affinity)


class QuerySelfAttention(nn.Module):
    """Attention of the queries among themselves, batch-normalised: softmax(BN(Q Kᵀ)) V, then BN, GELU and projection.

    Args:
        dim: width of the queries.
        num_heads: number of heads; keys have half the width of values.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.widths = num_heads, (dim // 2, dim // 2, dim)
        self.qkv = LinearNorm(dim, sum(self.widths))
        self.affinity_norm, self.read_norm = MapNorm(num_heads), TokenNorm(dim)
        self.proj = LinearNorm(dim, dim, gain=0.0)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the update (B, L, dim) of queries (B, L, dim), without the residual."""
        parts = self.qkv(queries).split(self.widths, -1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        affinity = self.affinity_norm(q @ k.mT)
        read = (precise(affinity).softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.proj(F.gelu(self.read_norm(read)))


class PixelUpdate(nn.Module):
    """The second path: pixels read the queries by the assignment that the interaction made.

        P <- P + assign_N(Q Kᵀ)ᵀ V(Ĉ)

    Args:
        dim: width of the queries.
        channels: number of channels of the pixels.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.values, self.read_norm = LinearNorm(dim, dim), TokenNorm(dim)
        self.proj = LinearNorm(dim, channels, gain=0.0)

    def forward(self, assignment: Tensor, queries: Tensor) -> Tensor:
        """Return the pixels' update (B, M, channels) from the assignment (B, L, M) and updated queries (B, L, dim)."""
        values = self.values(queries)
        return self.proj(F.gelu(self.read_norm(assignment.mT.to(values.dtype) @ values)))


class MaskDecoderLayer(nn.Module):
    """Interaction with the pixels, self-attention and FFN of the queries, all residual; predicts masks and classes.

    Args:
        channels: number of channels of the pixel map.
        num_classes: C, the number of classes without void.
        interaction: a function that builds the cross-mixer.
        dim: width of the queries.
        num_heads: number of heads of the self-attention.
        interaction_heads: number of heads of the cross-mixer; the mean over heads is the mask prediction.
        hidden: hidden width of the FFN.
        dual_path: whether pixels also read the queries.
        coordinates: whether pixels know where they are, see `PixelHead`.
        mask_gain: gain of the normalised affinity before training.
        drop_path_rate: stochastic depth of each residual branch.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        interaction: CrossMixerFactory,
        dim: int = 256,
        num_heads: int = 8,
        interaction_heads: int = 1,
        hidden: int = 2048,
        dual_path: bool = False,
        coordinates: bool = False,
        mask_gain: float = 0.1,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.pixel_proj = ConvNorm(channels, dim)
        self.pixel_head = PixelHead(dim, dim, coordinates=coordinates)
        self.query_proj = LinearNorm(dim, dim, act=True)
        self.interaction = Interaction(interaction(dim, interaction_heads), mask_gain)
        self.class_head = ClassHead(dim, num_classes)
        self.self_attention = QuerySelfAttention(dim, num_heads)
        self.ffn = nn.Sequential(LinearNorm(dim, hidden, act=True), LinearNorm(hidden, dim, gain=0.0))
        self.pixel_update = PixelUpdate(dim, channels) if dual_path else None
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, MaskPrediction]:
        """Return updated queries (B, L, dim), pixels (B, C, h, w), updated on a dual path, and the prediction."""
        grid = pixels.shape[2:]
        space = self.pixel_proj(F.gelu(pixels))
        query_space = self.query_proj(queries)
        keys, values = (x.flatten(2).mT for x in (self.pixel_head(space), space))
        update, affinity, embedding = self.interaction(query_space, keys, values)
        queries = queries + self.drop_path(update)
        queries = F.gelu(queries + self.drop_path(self.self_attention(query_space)))
        queries = F.gelu(queries + self.drop_path(self.ffn(queries)))
        if self.pixel_update is not None:
            assignment = self.interaction.mixer.assign(affinity).mean(1)
            pixels = pixels + self.drop_path(self.pixel_update(assignment, queries).mT.unflatten(2, grid))
        masks, features = affinity.mean(1).unflatten(2, grid), embedding.mT.unflatten(2, grid)
        return queries, pixels, MaskPrediction(self.class_head(query_space), masks, features)


class FinalPredictor(nn.Module):
    """Predicts masks and classes of the last queries on the finest map.

    Args:
        channels: number of channels of the map.
        num_classes: C, the number of classes without void.
        dim: width of the queries.
        mask_dim: width of the embedding in which queries and pixels meet.
        coordinates: whether pixels know where they are, see `PixelHead`.
        mask_gain: gain of the normalised mask logits before training.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        dim: int,
        mask_dim: int,
        *,
        coordinates: bool = False,
        mask_gain: float = 0.1,
    ) -> None:
        super().__init__()
        self.class_proj, self.mask_proj = LinearNorm(dim, dim, act=True), LinearNorm(dim, dim, act=True)
        self.class_head, self.kernels = ClassHead(dim, num_classes), LinearNorm(dim, mask_dim)
        self.pixel_head = PixelHead(channels, dim, coordinates=coordinates)
        self.embedding = ConvNorm(dim, mask_dim, act=False)
        self.mask_norm = MapNorm(1)
        nn.init.constant_(self.mask_norm.weight, mask_gain)

    def forward(self, queries: Tensor, pixels: Tensor) -> MaskPrediction:
        """Return the prediction for queries (B, L, dim) on a map (B, C, h, w)."""
        features = F.normalize(self.embedding(self.pixel_head(pixels)), dim=1)
        kernels = self.kernels(self.mask_proj(queries))
        masks = torch.einsum("blc,bchw->blhw", kernels, features)
        masks = self.mask_norm(masks[:, None].flatten(3)).view(masks.shape)
        return MaskPrediction(self.class_head(self.class_proj(queries)), masks, features)
