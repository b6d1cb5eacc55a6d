"""The base of the tasks that label pixels: a backbone under heads, and the logs of losses and IoU."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from attention_zoo import MixerFactory
from attention_zoo.analysis.maps import Pictures
from attention_zoo.errors import InputError
from attention_zoo.models import build_backbone
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.top_down import Mode
from tasks.base import Task
from tasks.metrics.mean_iou import MeanIoU

IGNORE = 255
"""The label of pixels that do not count in any loss or metric."""


class DenseTask(Task, ABC):
    """Base of the tasks that label pixels: a backbone with any mixer, under what a subclass puts on it.

    Args:
        put_on: builds the model of the task from the backbone.
        model: a name of ``timm.list_models()``, the backbone.
        image_size: height and width in training.
        mixer: token mixer of all attention layers of the backbone; None keeps its own.
        layer_mixers: mixers of some layers, by ``"3"``, ``"0-3"``, ``"last"``, ``"last-4"``.
        top_down: look twice: a mode of `TopDown`, or its arguments. AbSViT's models do so anyway.
        out_indices: layers or stages of the backbone that give maps; None is four, see `build_backbone`.
        pretrained: start the backbone from timm's released weights.
        weights: file to start the backbone from, e.g. a checkpoint of the model trained to classify.
        model_args: further arguments of the timm model.
        **task: see `Task`.

    Raises:
        InputError: an argument does not fit.
    """

    METRICS = MeanIoU.SCALES

    def __init__(
        self,
        put_on: Callable[[Backbone], nn.Module],
        model: str,
        image_size: tuple[int, int] | None,
        *,
        mixer: MixerFactory | None = None,
        layer_mixers: dict[str, MixerFactory] | None = None,
        top_down: Mode | dict[str, Any] | None = None,
        out_indices: list[int] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        model_args: dict[str, Any] | None = None,
        **task: Any,
    ) -> None:
        super().__init__(**task)
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
        self.model = put_on(backbone)

    def compiled_parts(self) -> list[nn.Module]:
        """Return what ``compile`` compiles: the backbone, since heads and losses look at numbers."""
        return [self.model.get_submodule("backbone")]

    def log_losses(self, loss: Tensor, parts: Mapping[str, Tensor], images: int) -> None:
        """Log the training loss of a batch, and the parts of it by their names, as means over the epoch.

        Args:
            loss: what is minimised.
            parts: what it is the sum of, or nothing.
            images: images of the batch.
        """
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=images, sync_dist=True)
        named = {f"train/{name}": value for name, value in parts.items()}
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=images, sync_dist=True)

    @abstractmethod
    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Measure one validation batch.

        A class that does not implement it is abstract, and no choice on the command line.
        """

    def log_iou(self, stage: str, metric: MeanIoU) -> None:
        """Log what a metric has counted over all processes, the means and the IoU of every class by its name; reset it.

        Args:
            stage: what the names begin with: ``val`` or ``test``.
            metric: metric of the stage.
        """
        trainer: Any = self.trainer
        if trainer.sanity_checking and not metric.confmat.any():
            metric.reset()  # it looks at a few images alone, which need not have labels
            return
        values = metric.compute()
        metric.reset()
        each = values.pop("iou")
        names = getattr(trainer.datamodule, "class_names", None) or range(len(each))
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True)
        self.log_dict({f"{stage}/iou/{name}": value for name, value in zip(names, each, strict=True)})


def label_pictures(predicted: Tensor, label: Tensor) -> Pictures:
    """Return predicted and true labels, int64 (B, H, W) and (B, h, w), as pictures; 255 becomes -1, no label."""
    return {"prediction": predicted, "label": label.masked_fill(label == IGNORE, -1)}


def check_labels(mask: Tensor, num_classes: int) -> None:
    """Refuse labels that are neither a class nor 255.

    Args:
        mask: int64, of any shape.
        num_classes: number of classes.

    Raises:
        InputError: there is such a label; the message names the first ones.
    """
    wrong = (mask < 0) | ((mask >= num_classes) & (mask != IGNORE))
    if wrong.any():
        labels = mask[wrong].unique().tolist()
        raise InputError(f"masks have the labels {labels[:5]}; classes are 0 to {num_classes - 1}, {IGNORE} is ignored")
