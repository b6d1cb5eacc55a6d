"""The result of an evaluation of interactive segmentation: mean IoU against the number of clicks."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from attention_zoo.clicks import number_of_clicks
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Evaluated, Result
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import save, whole
from attention_zoo.runs.files import read_json
from attention_zoo.runs.results import is_number, refuse_existing

THRESHOLDS = (0.80, 0.85, 0.90, 0.95)
"""The IoUs for which the number of clicks until they are reached is reported; fine masks are compared by the last."""

LATER = ("0.95",)
"""Those that results of before do not have."""

ROUNDING = 1e-6
"""The amount by which rounding may take a mean of proportions out of 0..1."""


@dataclass(frozen=True)
class ClickCurve:
    """The curve of one model under one setting on one data set.

    Attributes:
        name: the name of the setting.
        mean: (clicks + 1) the IoU before the first click and after each, as the mean over objects, then over trials.
        standard_error: (clicks + 1) the standard error of that mean over trials; NaN with a single trial.
        trials: (trials, clicks + 1) the mean over objects of each trial.
        noc: by IoU such as ``"0.90"``, mean number of clicks until it; ``clicks`` for objects that never reach it.
        unreached: by IoU, the number of objects (mean over trials) that took all clicks, including those that reached
            it at the last one.
        seconds_per_click: the seconds that the model and the simulated annotator took for a click.
        options: the options that make up the setting.
    """

    name: str
    mean: list[float]
    standard_error: list[float]
    trials: list[list[float]]
    noc: dict[str, float]
    unreached: dict[str, float]
    seconds_per_click: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, ious: np.ndarray, seconds_per_click: float, options: Mapping[str, Any]) -> "ClickCurve":
        """Return the curve of IoUs (objects, trials, clicks + 1), of which the first is before any click."""
        trials = ious.mean(0)
        error = trials.std(0, ddof=1) / math.sqrt(len(trials)) if len(trials) > 1 else np.full(ious.shape[2], np.nan)
        noc, unreached = {}, {}
        after = torch.as_tensor(ious[..., 1:])
        for threshold in THRESHOLDS:
            taken = number_of_clicks(after.flatten(0, 1), threshold, after.shape[-1]).view(after.shape[:2]).double()
            noc[f"{threshold:.2f}"] = float(taken.mean())
            unreached[f"{threshold:.2f}"] = float((taken >= after.shape[-1]).sum(0).double().mean())
        curve = trials.mean(0).tolist(), error.tolist(), trials.tolist()
        return cls(name, *curve, noc, unreached, seconds_per_click, dict(options))


@dataclass(frozen=True)
class ClickResult(Result):
    """The result of an evaluation: curves of several settings on the same objects, starting from the same clicks.

    Attributes:
        title: the name of the model.
        data: the name of the data set.
        protocol: what two results must share to be compared.
        objects: the number of objects.
        curves: one curve for each setting.
        ious: (settings, objects, trials, clicks + 1) the IoUs of every object, for a table of its own; None where they
            are not known, as in a result that was read.
        names: the names of the objects, as many as ``ious`` has.
    """

    file: ClassVar[str] = "clicks.json"
    shows_metrics: ClassVar[bool] = True

    title: str
    data: str
    protocol: Mapping[str, Any]
    objects: int
    curves: list[ClickCurve]
    ious: np.ndarray | None = field(default=None, repr=False, compare=False)
    names: Sequence[str] = field(default=(), repr=False, compare=False)

    def of(self, evaluated: Evaluated) -> Self:
        """Return this result with the title of the evaluated model."""
        return replace(self, title=evaluated.title)

    def write(self, folder: Path) -> None:
        """Write the result, its tables, the IoUs of every object and a figure into a folder.

        Raises:
            InputError: the folder holds a result already, or a file cannot be written.
        """
        from attention_zoo.reports.clicks.figures import overlay
        from attention_zoo.reports.clicks.tables import write_tables

        refuse_existing(folder / self.file)
        content = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.compare}
        content["curves"] = [asdict(curve) for curve in self.curves]
        figure = overlay({"": self})
        with whole(folder) as stage:
            (stage / self.file).write_text(json.dumps(_finite(content), indent=1) + "\n", encoding="utf-8")
            write_tables(stage, {"": self})
            if self.ious is not None:
                self._write_objects(stage / "clicks_objects.csv", self.ious, self.names)
            save(figure, stage / "clicks.png")

    def tables(self) -> list[tuple[str, Table]]:
        """Return the one table to print: numbers of clicks and mean IoU, a row for each curve, least clicks first."""
        from attention_zoo.reports.clicks.tables import noc_table

        goal = f"{THRESHOLDS[-1]:.2f}"
        ordered = replace(self, curves=sorted(self.curves, key=lambda curve: curve.noc[goal]))
        return [(self.title, noc_table({self.title: ordered}))]

    @classmethod
    def differences(cls, results: Mapping[str, Self]) -> list[str]:
        """Return the keys of the protocol, or ``objects``, in which results on the same data differ."""
        from attention_zoo.reports.clicks.tables import differences

        return differences(results)

    @classmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Return a table of results side by side, with a row for each curve.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """
        from attention_zoo.reports.clicks.tables import noc_table

        differing = cls.differences(results)
        if differing and not mixed:
            raise InputError(f"protocols differ in {', '.join(differing)}; give --mixed true to put them side by side")
        return noc_table(results)

    @classmethod
    def write_comparison(cls, folder: Path, results: Mapping[str, Self], table: Table) -> None:
        """Write the curves and tables of several results, and a figure, into a folder."""
        from attention_zoo.reports.clicks.figures import overlay
        from attention_zoo.reports.clicks.tables import write_tables

        figure = overlay(results)
        with whole(folder) as stage:
            save(figure, stage / "clicks.png")
            write_tables(stage, results)

    @classmethod
    def names_of(cls, read: Mapping[Path, Self]) -> list[list[str]]:
        """Return two ways to name results, their titles and their folders; the first that tells all apart is used."""
        return [[result.title for result in read.values()], [str(file.parent) for file in read]]

    def _write_objects(self, path: Path, ious: np.ndarray, names: Sequence[str]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["setting", "object", "trial", *(f"iou_{k}" for k in range(ious.shape[-1]))])
            for curve, table in zip(self.curves, ious, strict=True):
                for name, rows in zip(names, table, strict=True):
                    writer.writerows(
                        [curve.name, name, trial, *(f"{value:.6f}" for value in row)] for trial, row in enumerate(rows)
                    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result that `write` wrote, without the IoUs of every object.

        Raises:
            InputError: the file is no such result, or it holds impossible values.
        """
        kind = "no result of an evaluation of clicks"
        try:
            content = read_json(path)
            for key in content.keys() - {entry.name for entry in fields(cls) if entry.compare}:
                raise TypeError(f"it has no {key!r}")
            curves = [ClickCurve(**_numbers(curve)) for curve in content.pop("curves")]
            result = cls(**content, curves=curves)
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path} is {kind}: {error}") from error
        for wrong in _wrong(result):
            raise InputError(f"{path} is {kind}: {wrong}")
        return result


def _wrong(result: ClickResult) -> Iterator[str]:
    """Yield a message for each value that cannot be in a result."""
    for key, kind in (("title", str), ("data", str), ("protocol", dict)):
        if not isinstance(getattr(result, key), kind):
            yield f"{key} cannot be {getattr(result, key)!r:.60}"
    if type(result.objects) is not int or result.objects < 0:
        yield f"objects cannot be {result.objects!r:.60}"
    if not result.curves:
        yield "curves are empty"
    for place, curve in enumerate(result.curves):
        yield from _wrong_curve(f"curves[{place}]", curve)


def _wrong_curve(here: str, curve: ClickCurve) -> Iterator[str]:
    if not isinstance(curve.name, str):
        yield f"{here}.name cannot be {curve.name!r:.60}"
    if not isinstance(curve.mean, list) or not curve.mean or not all(map(_is_proportion, curve.mean)):
        yield f"{here}.mean must be numbers from 0 to 1, got {curve.mean!r:.60}"
        return
    clicks = len(curve.mean)
    errors = [0.0 if isinstance(error, float) and math.isnan(error) else error for error in curve.standard_error]
    if len(errors) != clicks or not all(is_number(error) and error >= 0 for error in errors):
        yield f"{here}.standard_error must be {clicks} numbers or null, got {curve.standard_error!r:.60}"
    if not isinstance(curve.trials, list) or not curve.trials:
        yield f"{here}.trials must be a list of each trial's own mean"
        return
    for trial in curve.trials:
        if not isinstance(trial, list) or len(trial) != clicks or not all(map(_is_proportion, trial)):
            yield f"{here}.trials must be lists of {clicks} numbers from 0 to 1, got {trial!r:.60}"
    for key in ("noc", "unreached"):
        numbers = getattr(curve, key)
        for threshold in (f"{each:.2f}" for each in THRESHOLDS):
            if threshold in LATER and isinstance(numbers, dict) and threshold not in numbers:
                continue
            value: Any = numbers.get(threshold) if isinstance(numbers, dict) else None
            if not is_number(value) or value < 0:
                yield f"{here}.{key}.{threshold} cannot be {value!r:.60}"
    if not is_number(curve.seconds_per_click) or curve.seconds_per_click < 0:
        yield f"{here}.seconds_per_click cannot be {curve.seconds_per_click!r:.60}"


def _is_proportion(value: Any) -> bool:
    return is_number(value) and -ROUNDING <= value <= 1 + ROUNDING


def _finite(value: Any) -> Any:
    """Return a copy of nested values with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(curve: dict[str, Any]) -> dict[str, Any]:
    errors = [math.nan if value is None else value for value in curve["standard_error"]]
    return {**curve, "standard_error": errors}
