"""Training of a click-guided segmenter by a curriculum of clicks."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from attention_zoo.clicks import Clicks
from attention_zoo.errors import InputError
from attention_zoo.mixers.losses import auxiliary_loss
from tasks.clicks.curriculum import Curriculum
from tasks.clicks.losses import LOSSES, checked_losses
from tasks.clicks.task import ClickTask


class ClickTraining(ClickTask):
    """Base of `InteractiveSegmentation`: its training by a curriculum of clicks.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        image_size: height and width in training; the command line takes it from the data.
        curriculum: what the samples of an epoch are given.
        losses: weight of each loss: ``bce``, ``normalised_focal``, ``soft_iou``.
        extra_weight: weight of the loss of what a decoder predicts on the way, such as OCR's regions.
        **clicks: see `ClickTask`.

    Raises:
        InputError: an argument does not fit.
    """

    def __init__(
        self,
        model: str,
        image_size: tuple[int, int] | None,
        *,
        curriculum: Curriculum | None = None,
        losses: dict[str, float] | None = None,
        extra_weight: float = 0.4,
        **clicks: Any,
    ) -> None:
        weights = checked_losses({"bce": 1.0} if losses is None else losses)
        super().__init__(model, image_size, **clicks)
        self.curriculum = curriculum or Curriculum()
        if self.model.guidance == "ritm" and self.curriculum.box_epochs:
            raise InputError("guidance='ritm' gives the model no box: curriculum.box_epochs must be 0")
        self.losses, self.extra_weight = weights, extra_weight

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the training loss of one batch, a scalar, with the clicks of the epoch's stage."""
        clicks, previous = self.training_clicks(batch)
        features = self.model.encode(batch["image"], clicks, batch["box"], previous)
        loss = self.loss(self.model.decode(features, clicks), batch["mask"])
        for logits in features.extra_logits:
            loss = loss + self.extra_weight * self.loss(logits, batch["mask"])
        loss = loss + auxiliary_loss(self.model)
        self.log_losses(loss, {}, len(batch["mask"]))
        return loss

    def loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the weighted sum of the losses, a mean over the samples.

        Args:
            logits: (B, 1, H, W).
            mask: (B, H, W) uint8: 1 object, 0 background, 255 ignored.
        """
        logits = logits[:, 0].float()
        target, counts = (mask == 1).to(logits), (mask != 255).to(logits)
        parts = [weight * LOSSES[name](logits, target, counts).mean() for name, weight in self.losses.items()]
        return torch.stack(parts).sum()

    def training_clicks(self, batch: dict[str, Tensor]) -> tuple[Clicks, Tensor | None]:
        """Return the curriculum's clicks on a batch in this epoch, and the mask before (B, 1, H, W) or None."""
        predict = partial(self.predicted, batch)
        return self.curriculum.clicks(self.current_epoch, batch["mask"], predict, self.protocol.threshold)
