"""The predictions of a mask decoder."""

from typing import NamedTuple

from torch import Tensor


class MaskPrediction(NamedTuple):
    """Masks and classes of L queries, from one layer of the decoder.

    Attributes:
        class_logits: (B, L, C + 1), logits of the classes; the last class is void, for a query that has no segment.
        mask_logits: (B, L, h, w), logits of the masks; softmax over the queries says which query a pixel belongs to.
        features: (B, E, h, w), of unit length: the embedding of the pixels that the masks come from.
    """

    class_logits: Tensor
    mask_logits: Tensor
    features: Tensor


class MaskOutputs(NamedTuple):
    """The outputs of a mask transformer.

    Attributes:
        layers: the prediction of each decoder layer, from its queries before their update.
        final: the prediction of the last queries on the finest map, which is evaluated.
        semantic_logits: (B, C, h, w), logits of the auxiliary semantic head, in training if there is one.
    """

    layers: tuple[MaskPrediction, ...]
    final: MaskPrediction
    semantic_logits: Tensor | None = None

    @property
    def predictions(self) -> tuple[MaskPrediction, ...]:
        """All predictions that training supervises, the final one last."""
        return (*self.layers, self.final)
