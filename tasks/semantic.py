"""Semantic segmentation: any backbone with any mixer under the heads of mmsegmentation."""

from typing import Any

import torch
from torch import Tensor

from attention_zoo import MixerFactory
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_integer
from attention_zoo.models import build_backbone
from attention_zoo.models.segmentor import Segmentor
from attention_zoo.models.top_down import Mode
from tasks.base import Task
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
"""The heads AbSViT was evaluated under, as in mmsegmentation's configs."""

IGNORE = 255


class SemanticSegmentation(Task):
    """Training by the losses of the heads, evaluation by mean IoU over the whole set.

    Batches are dictionaries: ``image`` (B, 3, H, W) float; ``mask`` (B, h, w) int64, the class of each pixel or 255
    where it counts nowhere, in evaluation of the label's own size; ``index`` (B,) int64, -1 marks a duplicate that pads
    a process and counts nowhere; in prediction ``size`` (B, 2) int64, height and width to predict at.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        num_classes: classes; the command line takes it from the data.
        image_size: height and width in training; the command line takes it from the data.
        mixer: token mixer of all attention layers of the backbone; None keeps its own.
        layer_mixers: mixers of some layers, by ``"3"``, ``"0-3"``, ``"last"``, ``"last-4"``.
        top_down: look twice: a mode of `TopDown`, or its arguments. AbSViT's models do so anyway.
        out_indices: layers or stages of the backbone that give maps; None is four, see `build_backbone`.
        decode_head: ``type`` and arguments of a head of mmsegmentation; ``type`` is UPerHead where it is left out.
        auxiliary_head: the same of a further head in training, by default FCNHead; an empty dictionary is none.
        neck: the same of a neck, such as MultiLevelNeck; None is none.
        pretrained: start the backbone from timm's released weights.
        weights: file to start the backbone from, e.g. a checkpoint of the model trained to classify.
        model_args: further arguments of the timm model.
        inference: how images are looked at in evaluation; None is whole and once.
        grad_checkpointing: keep only the inputs of the backbone's blocks in training, and compute the rest again.
        **task: see `Task`.
    """

    METRICS = MeanIoU.SCALES

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: int = 21,
        image_size: tuple[int, int] | None = None,
        *,
        mixer: MixerFactory | None = None,
        layer_mixers: dict[str, MixerFactory] | None = None,
        top_down: Mode | dict[str, Any] | None = None,
        out_indices: list[int] | None = None,
        decode_head: dict[str, Any] | None = None,
        auxiliary_head: dict[str, Any] | None = None,
        neck: dict[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        model_args: dict[str, Any] | None = None,
        inference: Inference | None = None,
        grad_checkpointing: bool = False,
        **task: Any,
    ) -> None:
        super().__init__(**task)
        check_integer("num_classes", num_classes, 1)
        backbone = build_backbone(
            model,
            mixer=mixer,
            layer_mixers=layer_mixers,
            out_indices=out_indices,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            top_down=top_down,
            model_args=model_args,
        )
        if grad_checkpointing:
            backbone.set_grad_checkpointing()
        auxiliary = None if auxiliary_head == {} else _head(FCNHEAD, auxiliary_head)
        self.model = Segmentor(backbone, num_classes, _head(UPERHEAD, decode_head), auxiliary, neck, IGNORE)
        self.num_classes = num_classes
        self.show_example(image_size)
        self.inference = inference or Inference()
        self.val_iou, self.test_iou = MeanIoU(num_classes, IGNORE), MeanIoU(num_classes, IGNORE)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W) of images (B, 3, H, W)."""
        return self.model(image)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The training loss of one batch: the sum of the losses of the heads."""
        image = batch["image"]
        check_labels(batch["mask"], self.num_classes)
        losses = self.model.losses(image, batch["mask"])
        loss = torch.stack([value.sum() for name, value in losses.items() if "loss" in name]).sum()
        options = {"batch_size": len(image), "sync_dist": True}
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, **options)
        parts = {f"train/{name}": value.float().mean() for name, value in losses.items()}
        self.log_dict(parts, on_step=False, on_epoch=True, **options)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one validation batch."""
        self._evaluate(batch, self.val_iou)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one test batch."""
        self._evaluate(batch, self.test_iou)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """The class (h, w) int64 of every pixel of each image, at the size of its file."""
        scores = self.inference(self, batch["image"])
        return [classes_at(one[None], size)[0] for one, size in zip(scores, batch["size"].tolist(), strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Log what was counted, over all processes."""
        log_iou(self, "val", self.val_iou)

    def on_test_epoch_end(self) -> None:
        """Log what was counted, over all processes."""
        log_iou(self, "test", self.test_iou)

    def _evaluate(self, batch: dict[str, Any], metric: MeanIoU) -> None:
        counted = batch["index"] >= 0
        image, mask = batch["image"][counted], batch["mask"][counted]
        if len(image):
            check_labels(mask, self.num_classes)
            metric.update(classes_at(self.inference(self, image), mask.shape[1:]), mask)


def log_iou(task: Task, stage: str, metric: MeanIoU) -> None:
    """Log what a metric has counted over all processes, the means and the IoU of every class by its name; reset it."""
    found = metric.compute()
    metric.reset()
    each = found.pop("iou")
    names = getattr(task.trainer.datamodule, "class_names", None) or range(len(each))
    task.log_dict({f"{stage}/{name}": value for name, value in found.items()}, prog_bar=True)
    task.log_dict({f"{stage}/iou/{name}": value for name, value in zip(names, each, strict=True)})


def classes_at(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """The most probable class (B, *size) int64 of each pixel, from scores (B, C, H, W) resized to a size."""
    scores = scores.float()
    if tuple(size) != tuple(scores.shape[2:]):
        scores = torch.nn.functional.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)
    return scores.argmax(1)


def check_labels(mask: Tensor, num_classes: int) -> None:
    """Raise an InputError if a label is neither a class nor 255."""
    wrong = (mask < 0) | ((mask >= num_classes) & (mask != IGNORE))
    if wrong.any():
        labels = mask[wrong].unique().tolist()
        raise InputError(f"masks have the labels {labels[:5]}; classes are 0 to {num_classes - 1}, {IGNORE} is ignored")


def _head(default: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """The default head with what is given changed, or another."""
    given = given or {}
    return {**default, **given} if given.get("type", default["type"]) == default["type"] else given
