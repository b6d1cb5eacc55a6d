"""Semantic and panoptic segmentation by mask classification: any backbone under the clustering mask decoder."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo import MixerFactory
from attention_zoo.analysis.maps import Pictures
from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.mixers.losses import auxiliary_loss
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.mask_decoder import (
    CrossMixerFactory,
    DecoderSize,
    MaskOutputs,
    MaskTransformer,
    PanopticThresholds,
    SemanticHeadKind,
    instance_masks,
    panoptic_segments,
    semantic_probabilities,
)
from attention_zoo.models.mask_decoder.parts import resize
from attention_zoo.scales import PROPORTION
from tasks.dense import IGNORE, DenseTask, check_labels, label_pictures
from tasks.mask_losses import LossWeights, MaskCriterion, Sampling
from tasks.metrics.instances import InstanceAP, instance_target
from tasks.metrics.mean_iou import MeanIoU
from tasks.metrics.panoptic import ExactPanopticQuality, panoptic_target


class MaskTask(DenseTask):
    """Base of `MaskSegmentation`: a mask transformer, and its predictions at the sizes of the images.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        num_classes: number of classes, C; the command line takes it from the data.
        image_size: height and width in training; the command line takes it from the data.
        interaction: the cross-mixer of queries and pixels; None is ``KMeansCross``.
        dual_path: whether pixels read the queries back.
        coordinates: whether pixels know where they are when they are clustered (CMT-DeepLab).
        pixel_attention: the self-mixer in the pixel decoder's coarsest levels, `Axial` as in MaX-DeepLab and
            kMaX-DeepLab; None leaves convolutions there.
        decoder: sizes of the decoder.
        strides: strides of the maps the decoder works on, see `MaskTransformer`.
        auxiliary: head that labels each pixel of the backbone's maps in training.
        **dense: see `DenseTask`.
    """

    model: MaskTransformer

    def __init__(
        self,
        model: str,
        num_classes: PositiveInt,
        image_size: tuple[int, int] | None,
        *,
        interaction: CrossMixerFactory | None = None,
        dual_path: bool = False,
        coordinates: bool = False,
        pixel_attention: MixerFactory | None = None,
        decoder: DecoderSize | None = None,
        strides: list[int] | None = None,
        auxiliary: SemanticHeadKind | None = None,
        **dense: Any,
    ) -> None:
        def put_on(backbone: Backbone) -> MaskTransformer:
            return MaskTransformer(
                backbone,
                num_classes,
                interaction=interaction or "KMeansCross",
                dual_path=dual_path,
                coordinates=coordinates,
                pixel_attention=pixel_attention,
                size=decoder,
                strides=strides,
                auxiliary=auxiliary,
            )

        super().__init__(put_on, model, image_size, **dense)
        self.show_example(image_size)
        self.num_classes = num_classes

    def forward(self, image: Tensor) -> MaskOutputs:
        """Return the predictions of all layers for images (B, 3, H, W)."""
        return self.model(image)

    def scored(self, batch: dict[str, Any]) -> MaskOutputs:
        """Return the predictions on a batch, once those of the last layer are checked.

        Raises:
            InputError: a logit of the last layer is not finite.
        """
        outputs = self(batch["image"])
        check_finite("class logits", outputs.final.class_logits, batch.get("index"))
        check_finite("mask logits", outputs.final.mask_logits, batch.get("index"))
        return outputs

    def seen_masks(self, outputs: MaskOutputs, image: Tensor) -> Tensor:
        """Return the final mask logits (B, L, H, W) at the size of the images (B, 3, H, W) that the model saw."""
        height, width = image.shape[2:]
        masks = resize(outputs.final.mask_logits.float(), self.model.covered((height, width)))
        return masks[..., :height, :width]

    def masks_at(self, outputs: MaskOutputs, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the final mask logits (B, L, *size), resized by way of the size of the images that the model saw."""
        return resize(self.seen_masks(outputs, image), size)

    def classes_at(self, outputs: MaskOutputs, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the most probable class (B, *size) int64 of every pixel."""
        masks = self.masks_at(outputs, image, size)
        return semantic_probabilities(outputs.final.class_logits, masks).argmax(1)

    def padded(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with targets padded below and on the right to what the maps cover; added pixels are void."""
        height, width = batch["image"].shape[2:]
        covered = self.model.covered((height, width))
        below, right = covered[0] - height, covered[1] - width
        if not below and not right:
            return batch
        padded = {**batch, "mask": F.pad(batch["mask"], (0, right, 0, below), value=IGNORE)}
        if "segments" in batch:
            masks = [F.pad(segments["masks"], (0, right, 0, below)) for segments in batch["segments"]]
            padded["segments"] = [{**old, "masks": new} for old, new in zip(batch["segments"], masks, strict=True)]
        return padded


class MaskSegmentation(MaskTask):
    """Training and evaluation of a mask transformer, on semantic masks or on panoptic segments.

    Batches are dictionaries: ``image`` (B, 3, H, W) float; ``mask`` (B, h, w) int64, 255 where void, of the label's own
    size in evaluation; ``index`` (B,) int64, -1 for duplicates that pad a process and count nowhere. Panoptic data add
    ``segments``, for each image a dictionary of ``masks`` (n, h, w) bool, ``labels`` (n,) int64 and ``crowd`` (n,)
    bool. Of semantic masks each class that an image has is a segment.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        num_classes: number of classes, C; the command line takes it from the data.
        image_size: height and width in training; the command line takes it from the data.
        things: classes whose segments are told apart; the command line takes them from the data. Where there are any,
            panoptic quality is measured beside mIoU.
        loss_weights: weights of the losses.
        sampling: sampling of pixels in the losses.
        thresholds: thresholds of the panoptic output.
        instance_ap: whether the average precision of the things' masks is measured too, see `InstanceAP`.
        backbone_lr: learning rate of the backbone, as a fraction of that of the rest.
        **mask: see `MaskTask`.
    """

    METRICS = {"*_quality": PROPORTION, "instance_ap*": PROPORTION}

    def __init__(
        self,
        model: str = "resnet50",
        num_classes: PositiveInt = 21,
        image_size: tuple[int, int] | None = None,
        things: list[int] | None = None,
        *,
        loss_weights: LossWeights | None = None,
        sampling: Sampling | None = None,
        thresholds: PanopticThresholds | None = None,
        instance_ap: bool = False,
        backbone_lr: float = 1.0,
        **mask: Any,
    ) -> None:
        super().__init__(model, num_classes, image_size, **mask)
        self.things = sorted(things or ())
        if self.things and not 0 <= self.things[0] <= self.things[-1] < num_classes:
            raise InputError(f"things={self.things} are no classes of {num_classes}")
        if instance_ap and not self.things:
            raise InputError("instance_ap=True needs things, classes whose segments are told apart; the data have none")
        self.backbone_lr = backbone_lr
        self.criterion = MaskCriterion(loss_weights, sampling)
        self.thresholds = thresholds or PanopticThresholds()
        self.val_metrics = mask_metrics(num_classes, self.things, instance_ap)
        self.test_metrics = mask_metrics(num_classes, self.things, instance_ap)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of every task, each split into the backbone, at its own learning rate, and the rest."""
        backbone = {id(parameter) for parameter in self.model.backbone.parameters()}
        parts = []
        for group in super().parameter_groups():
            for inside, scale in ((True, self.backbone_lr), (False, 1.0)):
                chosen = [parameter for parameter in group["params"] if (id(parameter) in backbone) == inside]
                parts += [{**group, "params": chosen, "lr_scale": scale * group.get("lr_scale", 1.0)}]
        return [group for group in parts if group["params"]]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the training loss of one batch, a scalar: the sum of the losses of all layers."""
        check_labels(batch["mask"], self.num_classes)
        outputs = self(batch["image"])
        batch = self.padded(batch)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.criterion(outputs, batch)
        loss = torch.stack(list(losses.values())).sum() + auxiliary_loss(self.model)
        self.log_losses(loss, {f"loss_{name}": part for name, part in losses.items()}, len(batch["image"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one validation batch."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one test batch."""
        self._evaluate(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics over all processes."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics over all processes."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """Return the most probable class (h, w) int64 of every pixel of each image, at the size of its file."""
        outputs = self.scored(batch)
        pairs = zip(outputs.final.class_logits, self.seen_masks(outputs, batch["image"]), strict=True)
        sizes = [tuple(size) for size in batch["size"].tolist()]
        return [
            semantic_probabilities(classes[None], resize(masks[None], size)).argmax(1)[0]
            for (classes, masks), size in zip(pairs, sizes, strict=True)
        ]

    def pictures(self, batch: Mapping[str, Any]) -> Pictures:
        """Return the predicted and the true class of every pixel, see `Task.pictures`."""
        image = batch["image"]
        return label_pictures(self.classes_at(self(image), image, tuple(image.shape[2:])), batch["mask"])

    def _evaluate(self, batch: dict[str, Any], metrics: Any) -> None:
        check_labels(batch["mask"][batch["index"] >= 0], self.num_classes)
        outputs = self.scored(batch)
        masks = self.masks_at(outputs, batch["image"], batch["mask"].shape[1:])
        for place in (batch["index"] >= 0).nonzero().flatten().tolist():
            classes, mask_logits = outputs.final.class_logits[place], masks[place]
            labels = semantic_probabilities(classes[None], mask_logits[None]).argmax(1)
            metrics["iou"].update(labels, batch["mask"][place, None])
            if "panoptic" in metrics:
                predicted = panoptic_segments(classes, mask_logits, self.things, self.thresholds)
                target = panoptic_target(batch["segments"][place])
                metrics["panoptic"].update(predicted[None], target[None])
            if "instances" in metrics:
                found = instance_masks(classes, mask_logits, self.things, self.thresholds)
                metrics["instances"].update([found], [instance_target(batch["segments"][place], self.things)])

    def _log_metrics(self, stage: str, metrics: Any) -> None:
        self.log_iou(stage, metrics["iou"])
        if "panoptic" in metrics:
            values = metrics["panoptic"].compute()
            for name, value in zip(("panoptic", "segmentation", "recognition"), values, strict=True):
                self.log(f"{stage}/{name}_quality", value, prog_bar=name == "panoptic")
            metrics["panoptic"].reset()
        if "instances" in metrics:
            if metrics["instances"].labelled or not self.trainer.sanity_checking:  # which looks at a few images alone
                for name, value in metrics["instances"].compute().items():
                    self.log(f"{stage}/{name}", value)
            metrics["instances"].reset()


def mask_metrics(num_classes: int, things: Collection[int], instance_ap: bool) -> nn.ModuleDict:
    """Return the metrics of a stage: ``iou``, over the whole set, with things ``panoptic``, if asked ``instances``."""
    metrics: dict[str, nn.Module] = {"iou": MeanIoU(num_classes, IGNORE)}
    if things:
        metrics["panoptic"] = ExactPanopticQuality(num_classes, things)
    if instance_ap:
        metrics["instances"] = InstanceAP()
    return nn.ModuleDict(metrics)
