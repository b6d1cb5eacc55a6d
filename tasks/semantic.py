"""Semantic segmentation: any backbone with any mixer under the heads of mmsegmentation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attention_zoo.analysis.maps import Pictures
from attention_zoo.domains import PositiveInt
from attention_zoo.mixers.losses import auxiliary_loss
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.segmentor import Segmentor
from tasks.dense import IGNORE, DenseTask, check_labels, label_pictures
from tasks.dense_inference import Inference
from tasks.metrics.mean_iou import MeanIoU

UPERHEAD = {"type": "UPerHead", "pool_scales": (1, 2, 3, 6), "channels": 512, "dropout_ratio": 0.1}
FCNHEAD = {
    "type": "FCNHead",
    "channels": 256,
    "num_convs": 1,
    "concat_input": False,
    "dropout_ratio": 0.1,
    "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4},
}
"""``UPERHEAD`` and ``FCNHEAD`` are the heads AbSViT was evaluated under, as in mmsegmentation's configs."""


class SemanticSegmentation(DenseTask):
    """Training by the losses of the heads, evaluation by mean IoU over the whole set.

    Batches are dictionaries: ``image`` (B, 3, H, W) float; ``mask`` (B, h, w) int64, the class of each pixel or 255
    where it counts nowhere, in evaluation of the label's own size; ``index`` (B,) int64, -1 marks a duplicate that pads
    a process and counts nowhere; in prediction ``size`` (B, 2) int64, height and width to predict at.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        num_classes: classes; the command line takes it from the data.
        image_size: height and width in training; the command line takes it from the data.
        decode_head: ``type`` and arguments of a head of mmsegmentation; ``type`` is UPerHead where it is left out.
        auxiliary_head: the same of a further head in training, by default FCNHead; an empty dictionary is none.
        neck: the same of a neck, such as MultiLevelNeck; None is none.
        inference: how images are looked at in evaluation; None is whole and once.
        **dense: see `DenseTask`.
    """

    model: Segmentor

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: PositiveInt = 21,
        image_size: tuple[int, int] | None = None,
        *,
        decode_head: dict[str, Any] | None = None,
        auxiliary_head: dict[str, Any] | None = None,
        neck: dict[str, Any] | None = None,
        inference: Inference | None = None,
        **dense: Any,
    ) -> None:
        head, auxiliary = _head(UPERHEAD, decode_head), _head(FCNHEAD, auxiliary_head)

        def put_on(backbone: Backbone) -> Segmentor:
            return Segmentor(backbone, num_classes, head, None if auxiliary_head == {} else auxiliary, neck, IGNORE)

        super().__init__(put_on, model, image_size, **dense)
        self.num_classes = num_classes
        self.show_example(image_size)
        self.inference = inference or Inference()
        self.val_iou, self.test_iou = MeanIoU(num_classes, IGNORE), MeanIoU(num_classes, IGNORE)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (B, num_classes, H, W) of images (B, 3, H, W)."""
        return self.model(image)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the training loss of one batch, a scalar: the sum of the losses of the heads."""
        image = batch["image"]
        check_labels(batch["mask"], self.num_classes)
        losses = self.model.losses(image, batch["mask"])
        loss = torch.stack([value.sum() for name, value in losses.items() if "loss" in name]).sum() + auxiliary_loss(
            self.model
        )
        self.log_losses(loss, {name: value.float().mean() for name, value in losses.items()}, len(image))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one validation batch."""
        self._evaluate(batch, self.val_iou)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one test batch."""
        self._evaluate(batch, self.test_iou)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """Return the class (h, w) int64 of every pixel of each image, at the size of its file."""
        scores = self.inference(self, batch["image"])
        return [classes_at(one[None], size)[0] for one, size in zip(scores, batch["size"].tolist(), strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Log the validation IoU over all processes, and reset it."""
        self.log_iou("val", self.val_iou)

    def on_test_epoch_end(self) -> None:
        """Log the test IoU over all processes, and reset it."""
        self.log_iou("test", self.test_iou)

    def pictures(self, batch: Mapping[str, Any]) -> Pictures:
        """Return the predicted and the true class of every pixel, see `Task.pictures`."""
        image = batch["image"]
        return label_pictures(classes_at(self.inference(self, image), image.shape[2:]), batch["mask"])

    def _evaluate(self, batch: dict[str, Any], metric: MeanIoU) -> None:
        counted = batch["index"] >= 0
        image, mask = batch["image"][counted], batch["mask"][counted]
        if len(image):
            check_labels(mask, self.num_classes)
            metric.update(classes_at(self.inference(self, image), mask.shape[1:]), mask)


def classes_at(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the most probable class (B, *size) int64 of each pixel, from scores (B, C, H, W) resized to ``size``."""
    scores = scores.float()
    if tuple(size) != tuple(scores.shape[2:]):
        scores = torch.nn.functional.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)
    return scores.argmax(1)


def _head(default: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    """Return the default head changed by the given arguments, or the given head if it is of another type."""
    changes = changes or {}
    return {**default, **changes} if changes.get("type", default["type"]) == default["type"] else changes
