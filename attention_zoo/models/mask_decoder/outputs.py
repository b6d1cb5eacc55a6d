"""What a mask decoder predicts."""

from typing import NamedTuple

from torch import Tensor


class MaskPrediction(NamedTuple):
    """Masks and classes of L queries, from one layer of the decoder.

    Attributes:
        class_logits: (B, L, C + 1); the last class is void, a query that has no segment.
        mask_logits: (B, L, h, w); their softmax over the queries says which query a pixel belongs to.
        features: (B, E, h, w), of unit length: the embedding of the pixels that the masks come from.
    """

    class_logits: Tensor
    mask_logits: Tensor
    features: Tensor


class MaskOutputs(NamedTuple):
    """Outputs of a mask transformer.

    Attributes:
        layers: prediction of each decoder layer, from its queries before their update.
        final: prediction of the last queries on the finest map; what is evaluated.
        semantic_logits: (B, C, h, w) of the auxiliary semantic head, in training where there is one.
    """

    layers: tuple[MaskPrediction, ...]
    final: MaskPrediction
    semantic_logits: Tensor | None = None

    @property
    def predictions(self) -> tuple[MaskPrediction, ...]:
        """All that are trained on, the final one last."""
        return (*self.layers, self.final)
