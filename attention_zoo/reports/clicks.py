"""Quality against number of clicks: curves, tables and figures of interactive segmentation."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_zoo.clicks import number_of_clicks
from attention_zoo.errors import InputError
from attention_zoo.reports.comparison import Table
from attention_zoo.reports.writing import save, whole
from attention_zoo.runs.files import read_json
from attention_zoo.runs.results import is_number

if TYPE_CHECKING:  # training keeps results too, and draws nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THRESHOLDS = (0.80, 0.85, 0.90)
"""IoUs that number of clicks is reported for."""

RESULT = "clicks.json"
"""The file that holds a result; a folder with one in it, or below it, can be compared."""

ROUNDING = 1e-6
"""Means of proportions may leave 0..1 by so much."""

DPI, FONT = 150, 9
MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class ClickCurve:
    """One model under one setting on one data set.

    Attributes:
        name: of the setting.
        mean: (clicks + 1) mean over objects, and over trials of that, of the IoU before the first click and after each.
        standard_error: (clicks + 1) of that mean over trials; NaN with a single trial.
        trials: of each trial, its own mean.
        noc: by IoU such as ``"0.90"``: mean number of clicks until it, ``clicks`` for objects that never reach it.
        unreached: by IoU: objects (mean over trials) that took all clicks, those that reached it at the last too.
        seconds_per_click: that the model and the simulated annotator took.
        options: what the setting is.
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
        """The curve of IoUs (objects, trials, clicks + 1)."""
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
class ClickResult:
    """An evaluation: curves of several settings on the same objects, with the same clicks to begin with.

    Attributes:
        title: the model.
        data: the data set.
        protocol: what two curves must share to be compared.
        objects: how many.
        curves: one a setting.
    """

    title: str
    data: str
    protocol: Mapping[str, Any]
    objects: int
    curves: list[ClickCurve]

    def write(self, folder: Path, ious: np.ndarray, names: Sequence[str]) -> None:
        """Write all there is to say: the result, its tables, the IoUs of every object, and a figure.

        Args:
            folder: made if it is not there.
            ious: (settings, objects, trials, clicks + 1).
            names: of the objects.
        """
        figure = overlay({"": self})
        with whole(folder) as stage:
            (stage / RESULT).write_text(json.dumps(_finite(asdict(self)), indent=1) + "\n", encoding="utf-8")
            write_tables(stage, {"": self})
            self._write_objects(stage / "clicks_objects.csv", ious, names)
            save(figure, stage / "clicks.png")

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
    def read(cls, file: Path) -> "ClickResult":
        """The result in a file.

        Raises:
            InputError: it is none.
        """
        kind = "no result of an evaluation of clicks"
        try:
            content = read_json(file)
            curves = [ClickCurve(**_numbers(curve)) for curve in content.pop("curves")]
            result = cls(**content, curves=curves)
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{file} is {kind}: {error}") from error
        for wrong in _wrong(result):
            raise InputError(f"{file} is {kind}: {wrong}")
        return result


def _wrong(result: ClickResult) -> Iterator[str]:
    """What cannot be in a result, by its key."""
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
        found = getattr(curve, key)
        for threshold in (f"{each:.2f}" for each in THRESHOLDS):
            value = found.get(threshold) if isinstance(found, dict) else None
            if not is_number(value) or value < 0:
                yield f"{here}.{key}.{threshold} cannot be {value!r:.60}"
    if not is_number(curve.seconds_per_click) or curve.seconds_per_click < 0:
        yield f"{here}.seconds_per_click cannot be {curve.seconds_per_click!r:.60}"


def _is_proportion(value: Any) -> bool:
    return is_number(value) and -ROUNDING <= value <= 1 + ROUNDING


def _finite(value: Any) -> Any:
    """With None in the place of NaN, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(curve: dict[str, Any]) -> dict[str, Any]:
    errors = [math.nan if value is None else value for value in curve["standard_error"]]
    return {**curve, "standard_error": errors}


def holds_result(path: Path) -> bool:
    """Whether a path is a result of clicks, or a folder with one in it or below it."""
    return path.name == RESULT if path.is_file() else any(path.rglob(RESULT))  # a broken one is told of when read


def check_comparable(results: Mapping[str, ClickResult], *, mixed: bool = False) -> None:
    """Refuse curves of different protocols on one data set.

    Args:
        results: what to put side by side.
        mixed: allow them.

    Raises:
        InputError: there are such, and ``mixed`` does not allow it.
    """
    differing = differences(results)
    if differing and not mixed:
        raise InputError(f"protocols differ in {', '.join(differing)}; give --mixed true to put them side by side")


def read_results(paths: Sequence[Path], left_out: list[str] | None = None) -> dict[str, ClickResult]:
    """The results at or below ``paths``, by names that tell them apart.

    Args:
        paths: folders or files.
        left_out: gets a line for each file that is no result, and the others are read; without it such a file is an
            error.

    Raises:
        InputError: a path does not exist or holds none, or a file is no result.
    """
    named: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        found = [path] if path.is_file() else sorted(path.rglob(RESULT))
        if not found:
            raise InputError(f"no {RESULT} in {path}: a test of InteractiveSegmentation writes it")
        named += found
    named = list(dict.fromkeys(file.resolve() for file in named))
    read = {}
    for file in named:
        try:
            read[file] = ClickResult.read(file)
        except InputError as error:
            if left_out is None or len(named) == 1:
                raise
            left_out.append(str(error))
    if not read:
        raise InputError(f"nothing to report on: {'; '.join(left_out or [])}")
    files, results = list(read), list(read.values())
    for names in ([result.title for result in results], [str(file.parent) for file in files]):
        if len(set(names)) == len(names):
            break
    return dict(zip(names, results, strict=True))


def labelled(results: Mapping[str, ClickResult]) -> list[tuple[str, ClickResult, ClickCurve]]:
    """All curves, by names that tell them apart: the setting's, the result's, or both."""
    every = [(name, result, curve) for name, result in results.items() for curve in result.curves]
    one_result = len(results) == 1
    one_setting = all(len(result.curves) == 1 for result in results.values())
    return [
        (curve.name if one_result else name if one_setting else f"{name}: {curve.name}", result, curve)
        for name, result, curve in every
    ]


def differences(results: Mapping[str, ClickResult]) -> list[str]:
    """What keeps results on the same data from being compared: keys of the protocol, or the number of objects."""
    found: dict[str, None] = {}
    for data in {result.data for result in results.values()}:
        every = [{**one.protocol, "objects": one.objects} for one in results.values() if one.data == data]
        keys = dict.fromkeys(key for one in every for key in one)
        found |= {key: None for key in keys if len({json.dumps(one.get(key)) for one in every}) > 1}
    return list(found)


def write_comparison(folder: Path, results: Mapping[str, ClickResult]) -> Table:
    """Write curves, tables and figure of several results, and give the table of `noc_table`."""
    figure = overlay(results)
    with whole(folder) as stage:
        save(figure, stage / "clicks.png")
        return write_tables(stage, results)


def write_tables(folder: Path, results: Mapping[str, ClickResult]) -> Table:
    """Write the curves as ``clicks.csv``, and a row for each as ``noc.csv`` and ``noc.md``; gives the latter."""
    rows = tuple(
        (name, result.data, str(clicks), f"{mean:.6f}", _blank(error), str(len(curve.trials)))
        for name, result, curve in labelled(results)
        for clicks, (mean, error) in enumerate(zip(curve.mean, curve.standard_error, strict=True))
    )
    curves = Table(("curve", "data", "clicks", "mean_iou", "standard_error", "trials"), rows)
    table = noc_table(results)
    (folder / "clicks.csv").write_text(curves.csv(), encoding="utf-8")
    (folder / "noc.csv").write_text(table.csv(), encoding="utf-8")
    (folder / "noc.md").write_text(table.markdown(), encoding="utf-8")
    return table


def noc_table(results: Mapping[str, ClickResult]) -> Table:
    """Number of clicks, objects that took all, mean IoU at some clicks, seconds a click; a row for each curve."""
    curves = labelled(results)
    percents = [f"{100 * threshold:.0f}" for threshold in THRESHOLDS]
    last = max(len(curve.mean) - 1 for _, _, curve in curves)
    marks = [mark for mark in (0, 1, 2, 3, 5, 10, 20) if mark <= last]
    header = ["", "data", *(f"NoC@{percent}" for percent in percents)]
    header += [*(f">={last}@{percent}" for percent in percents), *(f"mIoU@{mark}" for mark in marks)]
    rows = []
    for name, result, curve in curves:
        keys = [f"{threshold:.2f}" for threshold in THRESHOLDS]
        row = [name, result.data, *(f"{curve.noc[key]:.2f}" for key in keys)]
        row += [f"{curve.unreached[key]:g}" for key in keys]
        row += [f"{100 * curve.mean[mark]:.2f}" if mark < len(curve.mean) else "" for mark in marks]
        rows.append((*row, str(result.objects), str(len(curve.trials)), f"{curve.seconds_per_click:.4f}"))
    notes = [f"not comparable: {key} differs" for key in differences(results)]
    return Table((*header, "objects", "trials", "s/click"), tuple(rows), tuple(notes))


def _blank(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""


def overlay(results: Mapping[str, ClickResult]) -> "Figure":
    """Mean IoU against clicks, one line a curve with a band of one standard error over trials; a panel a data set."""
    from matplotlib.figure import Figure

    curves = labelled(results)
    panels = list(dict.fromkeys(result.data for _, result, _ in curves))
    figure = Figure((5.6 * len(panels), 4.4), dpi=DPI, layout="constrained")
    for axes, data in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, [entry for entry in curves if entry[1].data == data])
    return figure


def _panel(axes: "Axes", curves: Sequence[tuple[str, ClickResult, ClickCurve]]) -> None:
    from matplotlib.ticker import AutoLocator

    for place, (name, _, curve) in enumerate(curves):
        clicks, mean = np.arange(len(curve.mean)), 100 * np.asarray(curve.mean)
        error = 100 * np.asarray(curve.standard_error)
        (line,) = axes.plot(clicks, mean, marker=MARKERS[place % len(MARKERS)], markersize=3, linewidth=1.2, label=name)
        if np.isfinite(error).all():
            low, high = np.maximum(mean - error, 0), np.minimum(mean + error, 100)
            axes.fill_between(clicks, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    result = curves[0][1]
    trials = max(len(curve.trials) for _, _, curve in curves)
    band = f"; band: standard error over {trials} trials" if trials > 1 else ""
    title = f"{result.data}, {result.objects} objects, protocol {result.protocol.get('name')}{band}"
    axes.set_title(title, fontsize=FONT)
    axes.set_xlabel("clicks", fontsize=FONT)
    axes.set_ylabel("mean IoU, %", fontsize=FONT)
    locator = AutoLocator()
    locator.set_params(integer=True)
    axes.xaxis.set_major_locator(locator)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=FONT)
