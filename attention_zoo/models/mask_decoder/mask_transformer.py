"""The mask transformer: a backbone under the mask decoder."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from attention_zoo.mixers.base import MixerFactory
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.mask_decoder.decoder import DecoderSize, MaskDecoder
from attention_zoo.models.mask_decoder.layer import CrossMixerFactory
from attention_zoo.models.mask_decoder.outputs import MaskOutputs
from attention_zoo.models.mask_decoder.pyramid import Pyramid
from attention_zoo.models.mask_decoder.semantic_head import SemanticHeadKind, semantic_head


class MaskTransformer(nn.Module):
    """A backbone, a pyramid if the backbone's strides need one, a mask decoder, and an auxiliary head for training.

    Args:
        backbone: the backbone, which gives maps, finest first.
        num_classes: C, the number of classes without void.
        interaction: how queries and pixels meet, see `MaskDecoder`.
        dual_path: whether pixels also read the queries.
        coordinates: whether pixels know where they are, see `MaskDecoder`.
        pixel_attention: the mixer of the pixel decoder's coarsest levels, see `MaskDecoder`.
        size: all sizes of the decoder.
        strides: strides of the decoder's maps, finest first; None is the backbone's own where each is half of
            the next, else as many as it has maps, ending with 32.
        auxiliary: kind of a head that labels each pixel of the backbone's maps in training; None is no such head.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        interaction: str | CrossMixerFactory = "KMeansCross",
        dual_path: bool = False,
        coordinates: bool = False,
        pixel_attention: str | MixerFactory | None = None,
        size: DecoderSize | None = None,
        strides: Sequence[int] | None = None,
        auxiliary: SemanticHeadKind | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = Pyramid(backbone.channels, backbone.strides, strides or _pyramid_strides(backbone.strides))
        channels = self.pyramid.channels
        self.semantic_head = semantic_head(auxiliary, channels, num_classes) if auxiliary else None
        self.decoder = MaskDecoder(
            channels,
            num_classes,
            interaction=interaction,
            dual_path=dual_path,
            coordinates=coordinates,
            pixel_attention=pixel_attention,
            size=size,
        )

    def forward(self, image: Tensor) -> MaskOutputs:
        """Return the predictions of all layers for images (B, 3, H, W)."""
        maps = self.pyramid(self.backbone(image))
        outputs = self.decoder(maps)
        if self.semantic_head is None or not self.training:
            return outputs
        return outputs._replace(semantic_logits=self.semantic_head(maps))

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that the maps of an image of ``size`` cover, padded below and on the right."""
        stride = max(self.backbone.strides)
        height, width = (-(-side // stride) * stride for side in size)
        return height, width

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of the backbone's blocks and compute the rest again."""
        backbone: Any = self.backbone
        backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that should have no weight decay: the queries and the backbone's own."""
        named = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else ()
        return {f"decoder.{name}" for name in self.decoder.no_weight_decay()} | {f"backbone.{name}" for name in named}


def _pyramid_strides(strides: Sequence[int]) -> Sequence[int]:
    doubling = all(coarse == 2 * fine for fine, coarse in zip(strides, strides[1:], strict=False))
    return strides if doubling else [32 >> level for level in reversed(range(len(strides)))]
