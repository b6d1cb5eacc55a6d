"""The mask decoder: queries that become segments, on the way from a backbone's coarsest map to its finest.

Q. Yu et al., k-means Mask Transformer (kMaX-DeepLab), ECCV 2022; Q. Yu et al., CMT-DeepLab, CVPR 2022; H. Wang et al.,
MaX-DeepLab, CVPR 2021 (the dual path).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from attention_zoo.domains import checked
from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.mixers.registry import as_factory
from attention_zoo.models.mask_decoder.layer import CrossMixerFactory, FinalPredictor, MaskDecoderLayer
from attention_zoo.models.mask_decoder.outputs import MaskOutputs
from attention_zoo.models.mask_decoder.pixel_decoder import PixelDecoder


@checked
@dataclass(frozen=True)
class DecoderSize:
    """The sizes of a mask decoder; the defaults are those of kMaX-DeepLab with ResNet-50 on COCO.

    Args:
        num_queries: L, the most segments an image can have.
        dim: width of the queries.
        mask_dim: width of the embedding that gives the final masks.
        hidden: hidden width of the queries' FFN.
        num_heads: number of heads of the queries' self-attention.
        interaction_heads: number of heads of the cross-mixer.
        layers: number of decoder layers on each level, coarsest first (strides 32, 16, 8); finer levels have none.
        widths: width of the pixel decoder's blocks on each level, coarsest first; maps have four times the channels.
        blocks: number of blocks of the pixel decoder on each level.
        drop_path: stochastic depth of all residual branches.
        mask_gain: first scale of the mask logits, which are normalised; as a parameter it grows by no more than the
            learning rate a step, so that short runs need a larger one.
    """

    num_queries: int = 128
    dim: int = 256
    mask_dim: int = 128
    hidden: int = 2048
    num_heads: int = 8
    interaction_heads: int = 1
    layers: tuple[int, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (512, 256, 128, 64)
    blocks: tuple[int, ...] = (1, 5, 1, 1)
    drop_path: float = 0.0
    mask_gain: float = 0.1

    def __post_init__(self) -> None:
        """Raise an InputError where the numbers do not fit each other."""
        least = min(self.num_queries, self.dim, self.mask_dim, self.hidden, *self.widths)
        if least < 1 or min(*self.blocks, *self.layers) < 0:
            raise InputError("decoder: numbers of queries, channels, blocks and layers must be positive")
        if self.dim % (2 * self.num_heads) or self.dim % self.interaction_heads:
            raise InputError(
                f"decoder: dim={self.dim} must be a multiple of 2 * num_heads={2 * self.num_heads} and of "
                f"interaction_heads={self.interaction_heads}"
            )
        if len(self.blocks) != len(self.widths) or len(self.layers) > len(self.widths):
            raise InputError(
                f"decoder: blocks={self.blocks} must be as many as widths={self.widths}, layers={self.layers} no more"
            )
        if not 0 <= self.drop_path < 1:
            raise InputError(f"decoder: drop_path={self.drop_path} must be in [0, 1)")


class MaskDecoder(nn.Module):
    """Turns maps of a backbone into masks and classes of queries, with a prediction at every layer.

    Args:
        channels: number of channels of the backbone's maps, finest first.
        num_classes: C, the number of classes without void.
        interaction: how queries and pixels meet: a name of ``list_mixers("cross")``, a dotted path or a factory.
        dual_path: whether pixels also read the queries.
        coordinates: whether pixels know where they are when they are clustered (CMT-DeepLab).
        pixel_attention: the self-mixer in the blocks of the pixel decoder's two coarsest levels, a name, a dotted path
            or a factory, `Axial` in MaX-DeepLab and kMaX-DeepLab; None leaves them convolutions.
        size: all sizes of the decoder.

    Raises:
        InputError: the interaction or the mixer is unknown, or the maps do not fit the size.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        interaction: str | CrossMixerFactory = "KMeansCross",
        dual_path: bool = False,
        coordinates: bool = False,
        pixel_attention: str | MixerFactory | None = None,
        size: DecoderSize | None = None,
    ) -> None:
        super().__init__()
        size = size or DecoderSize()
        if len(channels) != len(size.widths):
            raise InputError(f"decoder: {len(size.widths)} widths for the {len(channels)} maps of the backbone")
        self.layer_counts = (*size.layers, *[0] * (len(channels) - len(size.layers)))
        self.pixel_decoder = PixelDecoder(
            list(reversed(channels)),
            size.widths,
            size.blocks,
            size.drop_path,
            None if pixel_attention is None else as_factory(pixel_attention),
        )
        self.queries = nn.Parameter(torch.empty(size.num_queries, size.dim))
        nn.init.trunc_normal_(self.queries, std=1.0)
        layer = partial(
            MaskDecoderLayer,
            num_classes=num_classes,
            interaction=as_factory(interaction, kind="cross"),
            dim=size.dim,
            num_heads=size.num_heads,
            interaction_heads=size.interaction_heads,
            hidden=size.hidden,
            dual_path=dual_path,
            coordinates=coordinates,
            mask_gain=size.mask_gain,
            drop_path_rate=size.drop_path,
        )
        widths = self.pixel_decoder.channels
        self.layers = nn.ModuleList(
            layer(width) for width, count in zip(widths, self.layer_counts, strict=True) for _ in range(count)
        )
        self.predictor = FinalPredictor(
            widths[-1], num_classes, size.dim, size.mask_dim, coordinates=coordinates, mask_gain=size.mask_gain
        )

    def forward(self, maps: Sequence[Tensor]) -> MaskOutputs:
        """Return the predictions of all layers for maps (B, c, h, w) of the backbone, finest first."""
        queries = self.queries.repeat(len(maps[0]), 1, 1)  # not expanded: torch counts no FLOPs past a parameter's view
        pixels, predictions, layers = None, [], iter(self.layers)
        for level, (features, count) in enumerate(zip(reversed(maps), self.layer_counts, strict=True)):
            pixels = self.pixel_decoder(level, features, pixels)
            for _ in range(count):
                queries, pixels, prediction = next(layers)(queries, pixels)
                predictions.append(prediction)
        return MaskOutputs(tuple(predictions), self.predictor(queries, pixels))

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that should have no weight decay: the queries, which are an embedding."""
        return {"queries"}
