"""Image classification by any timm model with any mixer."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from attention_zoo import MixerFactory, Outputs
from attention_zoo.domains import Domain, Fraction, PositiveInt, checked
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.mixers.losses import with_auxiliary_loss
from attention_zoo.models import build_model
from attention_zoo.models.top_down import Mode
from attention_zoo.seeding import run_seed, seeded
from tasks.base import Task
from tasks.patch_augmentation import PatchAugmentation, augment_patches

MIXING_SALT = 2
"""Number that keeps the seeds of mixing different from those of steps and samples."""


MixingMode = Literal["batch", "pair", "elem"]


@partial(checked, under="mixing")
@dataclass
class Mixing:
    """Mixup and cutmix of training images, by timm.

    Args:
        mixup_alpha: mixup's Beta parameter, 0 is off.
        cutmix_alpha: cutmix's Beta parameter, 0 is off.
        prob: probability that a batch (or sample) is mixed.
        switch_prob: probability of cutmix where both are on.
        mode: draw per batch, per pair of samples or per sample.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: Fraction = 1.0
    switch_prob: Fraction = 0.5
    mode: MixingMode = "batch"


class Classification(Task):
    """Cross-entropy training and top-1/top-5 evaluation of a timm model with a mixer of the zoo.

    Batches are dictionaries: ``image`` (B, 3, H, W) float, ``label`` (B,) int64 and ``index`` (B,) int64, the place of
    the sample in its split; -1 marks a duplicate that pads a process and counts nowhere.

    Args:
        model: a name of ``timm.list_models()``.
        num_classes: outputs; the command line takes it from the data.
        image_size: height and width; the command line takes it from the data.
        mixer: token mixer of all attention layers; None keeps timm's own.
        layer_mixers: mixers of some layers, by ``"3"``, ``"0-3"``, ``"last"``, ``"last-4"``; the others have ``mixer``.
        pretrained: start from timm's released weights.
        weights: file to start from, e.g. a checkpoint of the same model trained on other classes, whose classifier is
            left out.
        top_down: look twice: a mode of `TopDown`, or its arguments. AbSViT's models do so anyway.
        model_args: further arguments of the timm model, e.g. ``patch_size``.
        label_smoothing: of the training loss; evaluation losses have none.
        mixing: mixup and cutmix; None is off.
        patch_augmentation: train on each batch a second time, its patches augmented one by one; the losses add up.
        **task: see `Task`.
    """

    SHARDS = True

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: PositiveInt = 1000,
        image_size: tuple[int, int] | None = None,
        *,
        mixer: MixerFactory | None = None,
        layer_mixers: dict[str, MixerFactory] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        top_down: Mode | dict[str, Any] | None = None,
        model_args: dict[str, Any] | None = None,
        label_smoothing: Annotated[float, Domain(least=0, below=1)] = 0.1,
        mixing: Mixing | None = None,
        patch_augmentation: PatchAugmentation | None = None,
        **task: Any,
    ) -> None:
        super().__init__(**task)
        if num_classes < 2:
            raise InputError(f"num_classes={num_classes}: a classifier needs data of two or more classes")
        self.model = build_model(
            model,
            num_classes=num_classes,
            image_size=image_size,
            mixer=mixer,
            layer_mixers=layer_mixers,
            pretrained=pretrained,
            weights=weights,
            top_down=top_down,
            model_args=model_args,
        )
        self.label_smoothing = label_smoothing
        self.show_example(image_size)
        self.patch_augmentation = patch_augmentation
        self.mixing = _mixup(mixing, num_classes, label_smoothing) if mixing else None
        self.val_metrics = classification_metrics(num_classes)
        self.test_metrics = classification_metrics(num_classes)

    def forward(self, image: Tensor) -> Tensor | Outputs:
        """Return the logits (B, num_classes) of images (B, 3, H, W); some models return `Outputs` in training."""
        return self.model(image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the training loss of one batch, a scalar."""
        image, target = self.mix(batch["image"], batch["label"], batch_idx)
        loss = self._loss(image, target)
        if self.patch_augmentation is not None:
            loss = loss + self._loss(augment_patches(image, self.patch_augmentation), target)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(image), sync_dist=True)
        return loss

    def _loss(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the training loss of images (B, 3, H, W), a scalar, for labels (B,) or mixed ones (B, num_classes)."""
        outputs = with_auxiliary_loss(self.model, self(image))
        smoothing = 0.0 if self.mixing else self.label_smoothing  # mixing smooths its targets itself
        losses = [
            F.cross_entropy(logits.float(), target, label_smoothing=smoothing)
            for logits in (outputs.logits, *outputs.extra_logits)
        ]
        loss = torch.stack(losses).mean() + outputs.aux_loss
        return loss if outputs.target_loss is None else loss + outputs.target_loss(target)

    def mix(self, image: Tensor, label: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return images and targets after mixup or cutmix, seeded by run, epoch, batch and process.

        Without mixing both come back as they are: targets are the labels (B,). Mixed targets are (B, num_classes).

        Raises:
            InputError: mixing is on and the batch has an odd number of images.
        """
        if self.mixing is None:
            return image, label
        if len(image) % 2:
            raise InputError(f"mixup and cutmix pair the samples of a batch: batch_size={len(image)} must be even")
        with seeded(run_seed(), MIXING_SALT, self.current_epoch, batch_idx, self.global_rank):
            return self.mixing(image.clone(), label)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count one validation batch."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count one test batch."""
        self._evaluate(batch, self.test_metrics)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the class probabilities (B, num_classes) float32 of one batch."""
        return check_finite("logits", self(batch["image"]).float(), batch.get("index")).softmax(-1)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics over all processes."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics over all processes."""
        self._log_metrics("test", self.test_metrics)

    def _evaluate(self, batch: dict[str, Tensor], metrics: Any) -> None:
        logits = self(batch["image"]).float()
        counted = batch["index"] >= 0
        logits, label = logits[counted], batch["label"][counted]
        if not len(label):
            return
        check_finite("logits", logits, batch["index"][counted])
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(F.cross_entropy(logits.double(), label, reduction="none"))
            else:
                metric.update(logits, label)

    def _log_metrics(self, stage: str, metrics: Any) -> None:
        for name, metric in metrics.items():
            self.log(f"{stage}/{name}", metric, prog_bar=name == "accuracy")


def classification_metrics(num_classes: int) -> nn.ModuleDict:
    """Return the metrics of a classifier: mean loss, top-1 and, from five classes on, top-5 accuracy over samples."""
    metrics = {
        "loss": MeanMetric(nan_strategy="disable").set_dtype(torch.float64),
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
    }
    if num_classes >= 5:
        metrics["accuracy_top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
    return nn.ModuleDict(metrics)


def _mixup(mixing: Mixing, num_classes: int, label_smoothing: float) -> Mixup:
    if mixing.mixup_alpha <= 0 and mixing.cutmix_alpha <= 0:
        raise InputError("mixing: give mixup_alpha or cutmix_alpha above 0, or leave mixing out")
    return Mixup(**asdict(mixing), num_classes=num_classes, label_smoothing=label_smoothing)
