"""Interactive segmentation from clicks to a mask, trained by a curriculum and evaluated click by click."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from attention_zoo.analysis.maps import Pictures
from attention_zoo.clicks import number_of_clicks
from attention_zoo.errors import InputError
from attention_zoo.results.clicks import ClickCurve, ClickResult
from attention_zoo.scales import NEITHER, PROPORTION, Scale
from attention_zoo.seeding import run_seed
from tasks.clicks.answers import ClickAnswers
from tasks.clicks.protocols import ClickProtocol, asking
from tasks.clicks.session import Session, click_seeds, simulate
from tasks.clicks.settings import Setting
from tasks.clicks.table import ClickTable
from tasks.clicks.training import ClickTraining
from tasks.dense import label_pictures

GOAL = 0.9
"""The IoU that a choice of options should reach with the fewest clicks (Gabbur et al., appendix C.4)."""


class InteractiveSegmentation(ClickTraining):
    """Training and evaluation of a click-guided segmenter, whose attention is any mixer.

    Batches as of `InteractiveDataModule`. A validation logs ``val/miou_K``, the mean IoU after K clicks, and
    ``val/miou``, that after the last. A test logs ``test/noc_80``, ``_85``, ``_90`` and ``_95``, the mean IoU
    after 0, 1, 3, 5, 10 and 20 clicks (with ``settings``, under ``test/NAME/``) and leaves all curves in ``result``.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        image_size: height and width in training; the command line takes it from the data.
        key_adaptation: see `Setting`; this and the next four are for all settings that do not say otherwise.
        key_prior_precision: see `Setting`.
        value_propagation: see `Setting`.
        value_prior_precision: see `Setting`.
        adapt_in: see `Setting`.
        settings: what a test evaluates, one curve each; None is one, of the above.
        value_prior_precision_search: values to choose from by the validation data, in ``validate`` and before a test
            whose settings propagate values and leave ``value_prior_precision`` open: the one with the least clicks to
            an IoU of 90 % (appendix C.4: 0.1, 1, 10, 100).
        **training: see `ClickTraining`.

    Raises:
        InputError: an argument does not fit.
    """

    METRICS = {
        "miou*": PROPORTION,
        "noc_*": Scale("lower", 0.0),
        "seconds_per_click": Scale("lower", 0.0),
        "value_prior_precision": NEITHER,
    }

    def __init__(
        self,
        model: str = "resnet50",
        image_size: tuple[int, int] | None = None,
        *,
        key_adaptation: int | None = None,
        key_prior_precision: float | None = None,
        value_propagation: int | None = None,
        value_prior_precision: float | None = None,
        adapt_in: Literal["backbone", "head", "both"] = "both",
        settings: dict[str, Setting] | None = None,
        value_prior_precision_search: list[float] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(model, image_size, **training)
        own = Setting(key_adaptation, key_prior_precision, value_propagation, value_prior_precision, adapt_in)
        self.settings = {"": own} if settings is None else {name: one.filled(own) for name, one in settings.items()}
        if not self.settings:
            raise InputError("settings: give at least one, or leave them out")
        self.search = value_prior_precision_search or []
        self.result: ClickResult | None = None

    def on_validation_epoch_start(self) -> None:
        """Start an empty table for the validation."""
        self.val_table = self._table(self.trainer.val_dataloaders, 1, self.val_protocol)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one validation batch, under the first setting alone."""
        self.count(self.val_table, batch, list(self.settings.values())[:1], self.val_protocol)

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU after each click over all processes; in ``validate`` log the searched precision too."""
        states = self.val_table.states()
        curve = states["ious"][0, states["counted"][0] > 0].mean(0)
        self.log_dict({f"val/miou_{clicks}": value for clicks, value in enumerate(curve)})
        self.log("val/miou", curve[-1], prog_bar=True)
        if self.search and self.trainer.state.fn == "validate":
            self.log("val/value_prior_precision", self.searched(self.trainer.val_dataloaders))

    def on_test_start(self) -> None:
        """Search the precision of settings that leave it open, and start an empty table for the test.

        Raises:
            InputError: a search is needed, and the data have no validation images.
        """
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
        """Log the curves from the counts of all processes, and keep them as the result."""
        states = self.test_table.states()
        loader: Any = self.trainer.test_dataloaders
        dataset = loader.dataset
        self.ious, self.names = complete(states, dataset.trials, dataset.split.columns["name"])
        seconds = (states["seconds"] / states["made"].clamp(min=1)).tolist()
        curves = [
            ClickCurve.of(name or "as trained", ious, each, setting.plain())
            for (name, setting), ious, each in zip(self.settings.items(), self.ious, seconds, strict=True)
        ]
        for name, curve in zip(self.settings, curves, strict=True):
            prefix = f"test/{name}/" if name else "test/"
            self.log_dict({f"{prefix}{key}": value for key, value in summary(curve).items()})
        self.result = self._result(curves, len(self.names))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """Return the mask (H, W) uint8, 1 on the object, of each whole image, from the clicks that a batch has.

        Images are asked about one by one, so that a mask does not depend on what shares its batch: see `ClickAnswers`.
        """
        return [self.clicked(_one(batch, place)).to(torch.uint8) for place in range(len(batch["labels"]))]

    def clicked(self, view: Mapping[str, Any], answers: ClickAnswers | None = None) -> Tensor:
        """Return the mask (H, W) bool of one clicked object, under the setting that its annotation or the task has.

        Args:
            view: a batch of one image, as `InteractiveDataModule` has it in prediction.
            answers: what was answered about this image before; None is nothing.

        Raises:
            InputError: the annotation has a setting that does not exist or does not fit; or see `ClickAnswers.mask`.
        """
        setting = view["annotation"][0].get("setting")
        own = next(iter(self.settings.values()))
        return (answers or ClickAnswers(self)).mask(view, own if setting is None else Setting.parse(setting))

    def count(
        self, table: ClickTable, batch: dict[str, Any], settings: Sequence[Setting], protocol: ClickProtocol
    ) -> None:
        """Simulate the clicks on the objects of a batch under every setting, and count them in the table."""
        for place, setting in enumerate(settings):
            start = time.perf_counter()
            session = self._session(batch, setting, protocol)
            table.update(place, batch["index"], session.ious, session.made, time.perf_counter() - start)

    def pictures(self, batch: Mapping[str, Any]) -> Pictures:
        """Return the mask after a validation's clicks, under the first setting, and the object, see `Task.pictures`.

        The object is 0; no pixel outside it has a label.
        """
        session = self._session(batch, next(iter(self.settings.values())), self.val_protocol)
        objects = label_pictures(session.prediction.long(), batch["mask"].long())
        return {title: labels - 1 for title, labels in objects.items()}

    def _session(self, batch: Mapping[str, Any], setting: Setting, protocol: ClickProtocol) -> Session:
        """Simulate the clicks on the objects of a batch under a setting."""
        box = batch["box"] if protocol.box else None
        seeds = click_seeds(run_seed(), batch["index"].tolist())
        with self.adaptation(setting):
            ask = asking(self.model, batch["image"], box, protocol, setting.values)
            return simulate(ask, batch["mask"], protocol, seeds, batch.get("initial"))

    def searched(self, loader: Any) -> float:
        """Return the precision of ``value_prior_precision_search`` with the fewest clicks to 90 % IoU on ``loader``."""
        base = next((one for one in self.settings.values() if one.value_propagation), Setting(value_propagation=1))
        settings = [replace(base, value_prior_precision=value) for value in self.search]
        table = self._table(loader, len(settings), self.protocol)
        for batch in loader:
            self.count(table, self.trainer.strategy.batch_to_device(batch, self.device), settings, self.protocol)
        states = table.states()
        taken = [
            float(number_of_clicks(ious[counted > 0][:, 1:], GOAL, self.protocol.clicks).double().mean())
            for ious, counted in zip(states["ious"], states["counted"], strict=True)
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
        if isinstance(data, Correcting):
            protocol["initial_mask"] = data.initial_mask
        return ClickResult(self.title, type(data).__name__, protocol, objects, curves, self.ious, self.names)


@runtime_checkable
class Correcting(Protocol):
    """Data whose clicks correct masks.

    Attributes:
        initial_mask: which masks they correct.
    """

    initial_mask: str


def complete(states: dict[str, Tensor], trials: int, names: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the IoUs of the objects that were evaluated in all trials, and the names of these objects.

    Args:
        states: what was counted, see `ClickTable.states`.
        trials: number of trials of each object.
        names: names of all objects.

    Returns:
        IoUs, a NumPy array (settings, objects, trials, clicks + 1), and names of the objects.
    """
    counted = states["counted"][0].view(-1, trials).all(1)
    ious = states["ious"].unflatten(1, (-1, trials))[:, counted]
    return ious.numpy(), [name for name, there in zip(names, counted.tolist(), strict=True) if there]


def summary(curve: ClickCurve) -> dict[str, float]:
    """Return the numbers of a curve that are logged, by name."""
    marks = {mark: curve.mean[mark] for mark in (0, 1, 3, 5, 10, 20) if mark < len(curve.mean)}
    values = {f"noc_{100 * float(iou):.0f}": clicks for iou, clicks in curve.noc.items()}
    return (
        values
        | {f"miou_{mark}": value for mark, value in marks.items()}
        | {"seconds_per_click": curve.seconds_per_click}
    )


def _one(batch: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return the part of a batch that is about one of its images, as a batch of one."""
    return {name: values[place : place + 1] for name, values in batch.items()}
