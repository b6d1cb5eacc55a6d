"""Interactive segmentation: clicks in, a mask out; trained by a curriculum of clicks, evaluated click by click."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from attention_zoo import MixerFactory
from attention_zoo.adaptation import adapted
from attention_zoo.clicks import Clicks, number_of_clicks
from attention_zoo.errors import InputError
from attention_zoo.models import build_backbone
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.interactive import DecoderFactory, HeadFactory, InteractiveModel
from attention_zoo.results.clicks import ClickCurve, ClickResult
from attention_zoo.scales import NEITHER, PROPORTION, Scale
from attention_zoo.seeding import run_seed
from tasks.base import Task
from tasks.clicks.checks import check_count, check_number
from tasks.clicks.curriculum import Curriculum
from tasks.clicks.losses import LOSSES, checked_losses
from tasks.clicks.protocols import ClickProtocol, asking, protocol_of
from tasks.clicks.session import click_seeds, simulate
from tasks.clicks.settings import Setting
from tasks.clicks.table import ClickTable

GOAL = 0.9
"""The IoU whose number of clicks chooses among options (Gabbur et al., appendix C.4)."""


class InteractiveSegmentation(Task):
    """Training and evaluation of a click-guided segmenter, whose attention is any mixer.

    Batches as of `InteractiveDataModule`. A validation logs ``val/miou_K``, the mean IoU after K clicks, and
    ``val/miou``, that after the last. A test logs ``test/noc_80``, ``_85`` and ``_90``, the mean IoU after 0, 1, 3, 5,
    10 and 20 clicks (with ``settings``, under ``test/NAME/``) and leaves all curves in ``result``.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        image_size: height and width in training; the command line takes it from the data.
        mixer: token mixer of all attention layers of the backbone; None keeps its own.
        layer_mixers: mixers of some layers.
        out_indices: the backbone's layers or stages whose maps are used.
        pretrained: start from timm's released weights of the backbone.
        weights: file to start the backbone from.
        start: checkpoint of a run with the same model and image size, on other data, to start all of it from.
        model_args: further arguments of the timm model.
        decoder: from the backbone's maps to features; None is `Fusion`.
        head: from features to the mask; None is a 1 x 1 convolution.
        guidance: what the encoder is given beside the image, see `InteractiveModel`.
        clicks_in: ``encoder``, or ``head`` alone, so that a further click costs the head only.
        curriculum: what the samples of an epoch are given.
        losses: weight of each loss: ``bce``, ``normalised_focal``, ``soft_iou``.
        extra_weight: weight of the loss of what a decoder predicts on the way, such as OCR's regions.
        protocol: how it is tested: ``paper`` (the box, then clicks at random places of the largest error) or ``ritm``
            (no box, clicks in the middle of the deepest error, threshold 0.49, mirror image, zoom).
        max_clicks: of a test, for each object; None is the protocol's 20.
        zoom_size: longer side of what ``ritm`` zooms into, in pixels; None is its 400, 0 is no zoom.
        val_clicks: of a validation.
        key_adaptation: see `Setting`; this and the next four are for all settings that do not say otherwise.
        key_prior_precision: see `Setting`.
        value_propagation: see `Setting`.
        value_prior_precision: see `Setting`.
        adapt_in: see `Setting`.
        settings: what a test evaluates, one curve each; None is one, of the above.
        value_prior_precision_search: values to choose from by the validation data, in ``validate`` and before a test
            whose settings propagate values and leave ``value_prior_precision`` open: the one with the least clicks to
            an IoU of 90 % (appendix C.4: 0.1, 1, 10, 100).
        **task: see `Task`.

    Raises:
        InputError: an argument that does not fit.
    """

    METRICS = {
        "miou*": PROPORTION,
        "noc_*": Scale("lower", 0.0),
        "seconds_per_click": Scale("lower", 0.0),
        "value_prior_precision": NEITHER,
    }

    model: InteractiveModel

    def __init__(
        self,
        model: str = "resnet50",
        image_size: tuple[int, int] | None = None,
        *,
        mixer: MixerFactory | None = None,
        layer_mixers: dict[str, MixerFactory] | None = None,
        out_indices: list[int] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        start: str | None = None,
        model_args: dict[str, Any] | None = None,
        decoder: DecoderFactory | None = None,
        head: HeadFactory | None = None,
        guidance: Literal["pap", "ritm"] = "pap",
        clicks_in: Literal["encoder", "head"] = "encoder",
        curriculum: Curriculum | None = None,
        losses: dict[str, float] | None = None,
        extra_weight: float = 0.4,
        protocol: Literal["paper", "ritm"] = "paper",
        max_clicks: int | None = None,
        zoom_size: int | None = None,
        val_clicks: int = 3,
        key_adaptation: int | None = None,
        key_prior_precision: float | None = None,
        value_propagation: int | None = None,
        value_prior_precision: float | None = None,
        adapt_in: Literal["backbone", "head", "both"] = "both",
        settings: dict[str, Setting] | None = None,
        value_prior_precision_search: list[float] | None = None,
        **task: Any,
    ) -> None:
        super().__init__(**task)
        self.curriculum = curriculum or Curriculum()
        if guidance == "ritm" and self.curriculum.box_epochs:
            raise InputError("guidance='ritm' gives the model no box: curriculum.box_epochs must be 0")
        check_number("extra_weight", extra_weight)
        self.extra_weight = extra_weight
        self.losses = checked_losses({"bce": 1.0} if losses is None else losses)
        check_count("val_clicks", val_clicks, 1)
        self.protocol_name, self.protocol = protocol, protocol_of(protocol, max_clicks, zoom_size)
        self.val_protocol = replace(self.protocol, clicks=val_clicks, flip=False, zoom_in=None)
        own = Setting(key_adaptation, key_prior_precision, value_propagation, value_prior_precision, adapt_in)
        self.settings = {"": own} if settings is None else {name: one.filled(own) for name, one in settings.items()}
        if not self.settings:
            raise InputError("settings: give at least one, or leave them out")
        self.search = value_prior_precision_search or []
        for precision in self.search:
            check_number("value_prior_precision_search", precision)
        backbone = build_backbone(
            model,
            mixer=mixer,
            layer_mixers=layer_mixers,
            out_indices=out_indices,
            image_size=image_size,
            pretrained=pretrained,
            weights=weights,
            model_args=model_args,
        )
        self.model = InteractiveModel(backbone, decoder=decoder, head=head, guidance=guidance, clicks_in=clicks_in)
        if start is not None:
            load_checkpoint(self.model, start)
        self.title = model
        self.result: ClickResult | None = None

    def forward(
        self, image: Tensor, clicks: Clicks, box: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        """Logits (B, 1, H, W); see `InteractiveModel`."""
        return self.model(image, clicks, box, previous)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The training loss of one batch, with clicks as the epoch's stage has them."""
        clicks, previous = self.training_clicks(batch)
        features = self.model.encode(batch["image"], clicks, batch["box"], previous)
        loss = self.loss(self.model.decode(features, clicks), batch["mask"])
        for logits in features.extra_logits:
            loss = loss + self.extra_weight * self.loss(logits, batch["mask"])
        size = len(batch["mask"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The weighted sum of the losses of logits (B, 1, H, W), a mean over the samples."""
        logits = logits[:, 0].float()
        target, counts = (mask == 1).to(logits), (mask != 255).to(logits)
        parts = [weight * LOSSES[name](logits, target, counts).mean() for name, weight in self.losses.items()]
        return torch.stack(parts).sum()

    def training_clicks(self, batch: dict[str, Tensor]) -> tuple[Clicks, Tensor | None]:
        """Clicks on the images of a batch, and the mask before (B, 1, H, W), as the curriculum has them this epoch."""
        predict = partial(self.predicted, batch)
        return self.curriculum.clicks(self.current_epoch, batch["mask"], predict, self.protocol.threshold)

    @torch.no_grad()
    def predicted(self, batch: dict[str, Tensor], clicks: Clicks, previous: Tensor | None = None) -> Tensor:
        """Probabilities (B, 1, H, W), as in evaluation."""
        training = self.model.training
        self.model.eval()
        probability = self(batch["image"], clicks, batch["box"], previous).float().sigmoid()
        self.model.train(training)
        torch.clear_autocast_cache()  # it holds weights that were cast without gradient
        return probability

    def on_validation_epoch_start(self) -> None:
        """Count afresh."""
        self.val_table = self._table(self.trainer.val_dataloaders, 1, self.val_protocol)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one validation batch."""
        self.count(self.val_table, batch, list(self.settings.values())[:1], self.val_protocol)

    def on_validation_epoch_end(self) -> None:
        """Log what was counted, over all processes."""
        found = self.val_table.states()
        curve = found["ious"][0, found["counted"][0] > 0].mean(0)
        self.log_dict({f"val/miou_{clicks}": value for clicks, value in enumerate(curve)})
        self.log("val/miou", curve[-1], prog_bar=True)
        if self.search and self.trainer.state.fn == "validate":
            self.log("val/value_prior_precision", self.searched(self.trainer.val_dataloaders))

    def on_test_start(self) -> None:
        """Search where a setting leaves the precision open, and count afresh."""
        settings = self.settings.items()
        open_ones = {name: one for name, one in settings if one.value_propagation and one.value_prior_precision is None}
        if self.search and open_ones:
            best = self.searched(self._validation_data())
            self.log("test/value_prior_precision", best)
            self.settings |= {name: replace(one, value_prior_precision=best) for name, one in open_ones.items()}
        self.test_table = self._table(self.trainer.test_dataloaders, len(self.settings), self.protocol)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one test batch under every setting."""
        self.count(self.test_table, batch, list(self.settings.values()), self.protocol)

    def on_test_epoch_end(self) -> None:
        """Make the curves of all processes' counts, and log them."""
        found = self.test_table.states()
        loader: Any = self.trainer.test_dataloaders
        dataset = loader.dataset
        self.ious, self.names = complete(found, dataset.trials, dataset.split.columns["name"])
        seconds = (found["seconds"] / found["made"].clamp(min=1)).tolist()
        curves = [
            ClickCurve.of(name or "as trained", ious, each, setting.plain())
            for (name, setting), ious, each in zip(self.settings.items(), self.ious, seconds, strict=True)
        ]
        for name, curve in zip(self.settings, curves, strict=True):
            prefix = f"test/{name}/" if name else "test/"
            self.log_dict({f"{prefix}{key}": value for key, value in summary(curve).items()})
        self.result = self._result(curves, len(self.names))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """Masks (H, W) uint8, 1 on the object, of the whole images, from the clicks that a batch has."""
        clicks = Clicks(batch["points"], batch["labels"])
        image, setting = batch["image"], next(iter(self.settings.values()))
        probability = torch.zeros_like(image[:, :1])
        with self.adaptation(setting):
            ask = asking(self.model, image, batch["box"], self.protocol, setting.values)
            for count in range(min(1, clicks.count), clicks.count + 1):  # what was predicted before may matter
                probability = ask(clicks.until(count), probability)
        views = zip(probability, batch["region"].tolist(), batch["size"].tolist(), strict=True)
        return [(whole(one, region, size) > self.protocol.threshold).to(torch.uint8) for one, region, size in views]

    def count(
        self, table: ClickTable, batch: dict[str, Any], settings: Sequence[Setting], protocol: ClickProtocol
    ) -> None:
        """Click at the objects of a batch under every setting, and count."""
        box = batch["box"] if protocol.box else None
        seeds = click_seeds(run_seed(), batch["index"].tolist())
        for place, setting in enumerate(settings):
            start = time.perf_counter()
            with self.adaptation(setting):
                ask = asking(self.model, batch["image"], box, protocol, setting.values)
                session = simulate(ask, batch["mask"], protocol, seeds)
            table.update(place, batch["index"], session.ious, session.made, time.perf_counter() - start)

    @contextmanager
    def adaptation(self, setting: Setting) -> Iterator[None]:
        """The model adapts its keys as a setting says; its values follow in the call of the head."""
        module = {"backbone": self.model.backbone, "head": self.model.head, "both": self.model}[setting.adapt_in]
        with adapted(module, **setting.keys):
            yield

    def searched(self, loader: Any) -> float:
        """The precision of ``value_prior_precision_search`` with the least clicks to an IoU of 90 % on ``loader``."""
        base = next((one for one in self.settings.values() if one.value_propagation), Setting(value_propagation=1))
        settings = [replace(base, value_prior_precision=value) for value in self.search]
        table = self._table(loader, len(settings), self.protocol)
        for batch in loader:
            self.count(table, self.trainer.strategy.batch_to_device(batch, self.device), settings, self.protocol)
        found = table.states()
        taken = [
            float(number_of_clicks(ious[counted > 0][:, 1:], GOAL, self.protocol.clicks).double().mean())
            for ious, counted in zip(found["ious"], found["counted"], strict=True)
        ]
        told = ", ".join(f"{value:g}: {clicks:.2f}" for value, clicks in zip(self.search, taken, strict=True))
        rank_zero_info(f"clicks to {GOAL:.0%} IoU on the validation data, by value_prior_precision: {told}")
        return float(self.search[taken.index(min(taken))])

    def _validation_data(self) -> DataLoader[Any]:
        trainer: Any = self.trainer
        data = trainer.datamodule
        try:
            data.setup("validate")
        except InputError as error:
            raise InputError(
                "value_prior_precision_search needs validation data; search with validate on data that have some, then "
                f"give value_prior_precision. {error}"
            ) from error
        return data.val_dataloader()

    def _table(self, loader: Any, settings: int, protocol: ClickProtocol) -> ClickTable:
        return ClickTable(settings, len(loader.dataset), protocol.clicks).to(self.device)

    def _result(self, curves: list[ClickCurve], objects: int) -> ClickResult:
        trainer: Any = self.trainer
        data = trainer.datamodule
        protocol = {
            "name": self.protocol_name,
            "clicks": self.protocol.clicks,
            "threshold": self.protocol.threshold,
            "zoom_in": self.protocol.zoom_in,
            "crop": data.crop,
            "image_size": list(data.image_size) if data.crop == "box" else None,
            "padding": data.padding if data.crop == "box" else None,
            "corner_noise": data.corner_noise,
            "trials": data.trials,
        }
        return ClickResult(self.title, type(data).__name__, protocol, objects, curves, self.ious, self.names)


def complete(found: dict[str, Tensor], trials: int, names: Sequence[str]) -> tuple[Any, list[str]]:
    """IoUs (settings, objects, trials, clicks + 1) of objects that were evaluated in all trials, and their names."""
    counted = found["counted"][0].view(-1, trials).all(1)
    left_out = int((~counted).sum())
    if left_out:
        rank_zero_warn(f"{left_out} of {len(counted)} objects were not evaluated, as trainer.limit_test_batches says")
    ious = found["ious"].unflatten(1, (-1, trials))[:, counted]
    return ious.numpy(), [name for name, there in zip(names, counted.tolist(), strict=True) if there]


def summary(curve: ClickCurve) -> dict[str, float]:
    """Numbers of a curve for a log."""
    marks = {mark: curve.mean[mark] for mark in (0, 1, 3, 5, 10, 20) if mark < len(curve.mean)}
    found = {f"noc_{100 * float(iou):.0f}": clicks for iou, clicks in curve.noc.items()}
    return (
        found
        | {f"miou_{mark}": value for mark, value in marks.items()}
        | {"seconds_per_click": curve.seconds_per_click}
    )


def whole(probability: Tensor, region: Sequence[int], size: Sequence[int]) -> Tensor:
    """Probabilities (1, h, w) of a view put back into the image: (H, W), 0 outside of the view.

    Args:
        probability: of the view.
        region: its first row, first column, height and width in the image; may reach out of it.
        size: height and width of the image.
    """
    top, left, height, width = region
    if tuple(probability.shape[1:]) != (height, width):
        probability = F.interpolate(probability[None], (height, width), mode="bilinear", align_corners=False)[0]
    found = probability.new_zeros(tuple(size))
    rows = slice(max(top, 0), min(top + height, size[0]))
    columns = slice(max(left, 0), min(left + width, size[1]))
    inside = probability[0, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    found[rows, columns] = inside
    return found
