"""The training loss of a mask transformer, which compares every layer's prediction with one matching."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import PositiveFloat, PositiveInt, SignedFloat, checked
from attention_zoo.models.mask_decoder import MaskOutputs, MaskPrediction
from attention_zoo.models.mask_decoder.parts import resize
from tasks.mask_losses.losses import class_loss, contrastive_loss, dice_loss, mask_id_loss, semantic_loss
from tasks.mask_losses.matching import MatchedTargets, matched_targets
from tasks.mask_losses.targets import segments_of_batch


@partial(checked, under="loss_weights")
@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves one out. The defaults are kMaX-DeepLab's.

    Args:
        classes: PQ-style cross-entropy of the classes.
        dice: PQ-style dice of the masks.
        mask_id: cross-entropy of each pixel's query.
        contrastive: pixel-wise instance discrimination.
        semantic: auxiliary head, where the model has one.
    """

    classes: float = 3.0
    dice: float = 3.0
    mask_id: float = 0.3
    contrastive: float = 1.0
    semantic: float = 1.0


@partial(checked, under="sampling")
@dataclass(frozen=True)
class Sampling:
    """Sampling of pixels in the contrastive and the semantic loss. The defaults are kMaX-DeepLab's on COCO.

    Args:
        contrastive_samples: pixels drawn in each image.
        contrastive_exponent: odds of a pixel are the inverse of its segment's area to this power.
        contrastive_temperature: temperature of the softmax over similarities.
        semantic_samples: pixels drawn in each image; 0 takes all.
        semantic_exponent: as ``contrastive_exponent``.
    """

    contrastive_samples: PositiveInt = 4096
    contrastive_exponent: SignedFloat = 1.5
    contrastive_temperature: PositiveFloat = 0.3
    semantic_samples: int = 4096
    semantic_exponent: SignedFloat = 2.0


class MaskCriterion(nn.Module):
    """Losses of the predictions of all layers; queries are matched once, on the final prediction, for all of them.

    Args:
        weights: weights of the losses.
        sampling: sampling of pixels.
        ignore_index: label of void pixels.
    """

    def __init__(
        self, weights: LossWeights | None = None, sampling: Sampling | None = None, ignore_index: int = 255
    ) -> None:
        super().__init__()
        self.weights, self.sampling = weights or LossWeights(), sampling or Sampling()
        self.ignore_index = ignore_index

    def forward(self, outputs: MaskOutputs, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the weighted losses by name, scalars summed over the predictions; their sum is the training loss.

        Args:
            outputs: the outputs of the model.
            batch: a batch with ``mask`` or ``segments``, see `segments_of_batch`.
        """
        final = outputs.final
        height, width = final.mask_logits.shape[2:]
        segments = segments_of_batch(batch, (height, width), self.ignore_index)
        targets = matched_targets(final.class_logits, final.mask_logits, segments)
        each = [self.of_prediction(prediction, targets) for prediction in outputs.predictions]
        losses = {name: sum((part[name] for part in each[1:]), each[0][name]) for name in each[0]}
        if outputs.semantic_logits is not None and self.weights.semantic:
            losses["semantic"] = self.weights.semantic * self._semantic(outputs.semantic_logits, batch, targets)
        return losses

    def of_prediction(self, prediction: MaskPrediction, targets: MatchedTargets) -> dict[str, Tensor]:
        """Return the weighted losses of one prediction by name, scalars, at the size of the targets."""
        weights, size = self.weights, (targets.void.shape[1], targets.void.shape[2])
        masks = resize(prediction.mask_logits.float(), size)
        losses = {
            "classes": weights.classes * class_loss(prediction.class_logits, targets.labels, targets.class_weight),
            "dice": weights.dice * dice_loss(masks, targets.masks, targets.mask_weight, targets.void),
            "mask_id": weights.mask_id * mask_id_loss(masks, targets.masks, targets.void),
        }
        if weights.contrastive:
            sampling = self.sampling
            losses["contrastive"] = weights.contrastive * contrastive_loss(
                resize(prediction.features.float(), size),
                targets.masks,
                targets.void,
                targets.area,
                samples=sampling.contrastive_samples,
                exponent=sampling.contrastive_exponent,
                temperature=sampling.contrastive_temperature,
            )
        return losses

    def _semantic(self, logits: Tensor, batch: dict[str, Any], targets: MatchedTargets) -> Tensor:
        size = tuple(logits.shape[2:])
        mask, area = (
            F.interpolate(plane[:, None].double(), size, mode="nearest-exact")[:, 0]
            for plane in (batch["mask"], targets.area)
        )
        return semantic_loss(
            logits,
            mask.long(),
            area,
            ignore_index=self.ignore_index,
            samples=self.sampling.semantic_samples,
            exponent=self.sampling.semantic_exponent,
        )
