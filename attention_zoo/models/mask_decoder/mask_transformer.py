"""A backbone under the mask decoder."""

from collections.abc import Sequence

from torch import Tensor, nn

from attention_zoo.models.backbone import Backbone
from attention_zoo.models.mask_decoder.decoder import DecoderSize, MaskDecoder
from attention_zoo.models.mask_decoder.layer import CrossMixerFactory
from attention_zoo.models.mask_decoder.outputs import MaskOutputs
from attention_zoo.models.mask_decoder.pyramid import Pyramid
from attention_zoo.models.mask_decoder.semantic_head import SemanticHeadKind, semantic_head


class MaskTransformer(nn.Module):
    """Backbone, pyramid where the backbone's strides need one, mask decoder, and an auxiliary head for training.

    Args:
        backbone: gives maps, finest first.
        num_classes: C.
        interaction: see `MaskDecoder`.
        dual_path: see `MaskDecoder`.
        coordinates: see `MaskDecoder`.
        size: see `MaskDecoder`.
        strides: of the maps that the decoder works on, finest first; None is the backbone's own where each is half of
            the next, else as many as it has maps, ending with 32.
        auxiliary: a head that labels each pixel of the backbone's maps in training; None is off.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        interaction: str | CrossMixerFactory = "KMeansCross",
        dual_path: bool = False,
        coordinates: bool = False,
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
            channels, num_classes, interaction=interaction, dual_path=dual_path, coordinates=coordinates, size=size
        )

    def forward(self, image: Tensor) -> MaskOutputs:
        """Predictions of all layers for images (B, 3, H, W)."""
        maps = self.pyramid(self.backbone(image))
        outputs = self.decoder(maps)
        if self.semantic_head is None or not self.training:
            return outputs
        return outputs._replace(semantic_logits=self.semantic_head(maps))

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the maps of an image of ``size`` cover: backbones pad below and to the right."""
        stride = max(self.backbone.strides)
        height, width = (-(-side // stride) * stride for side in size)
        return height, width

    def no_weight_decay(self) -> set[str]:
        """The queries, and what the backbone names."""
        named = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else ()
        return {f"decoder.{name}" for name in self.decoder.no_weight_decay()} | {f"backbone.{name}" for name in named}


def _pyramid_strides(strides: Sequence[int]) -> Sequence[int]:
    doubling = all(coarse == 2 * fine for fine, coarse in zip(strides, strides[1:], strict=False))
    return strides if doubling else [32 >> level for level in reversed(range(len(strides)))]
