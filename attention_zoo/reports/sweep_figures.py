"""Figures of a sweep: quality over cost, robust over clean numbers, curves over an axis, training."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attention_zoo.reports.statistics import Estimate, arrow
from attention_zoo.reports.sweep import COSTS, QUALITY, Group, SweepReport
from attention_zoo.sweeps.driver import folder_of

DPI, PANEL = 150, 3.4
"""Dots per inch; inches of a panel's side."""

MARKERS = "os^D*vPXdh<>p"

MOST_MARKS = 8
"""Up to so many values of an axis are all marked."""

LEGEND = 3
"""Columns of a legend."""

INTERVAL = "95 % confidence interval over seeds"


def figures(report: SweepReport) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of all that the sweep has data for."""
    metric = report.quality
    if metric is None:
        return
    if report.costs:
        yield "cost", f"{metric} over cost, mean and {INTERVAL}", over_cost(report, metric)
    for evaluation, (clean, others) in robust_metrics(report.metrics).items():
        name = "robust" + evaluation.removeprefix("robustness").replace("/", "_")
        yield name, f"robust over clean numbers, mean and {INTERVAL}", against(report, clean, others)
    for axis in numeric_axes(report):
        title = report.plan.titles[axis]
        yield f"over_{title}", f"over {title}, mean and {INTERVAL}", over_axis(report, axis)
    for evaluation, marks in click_metrics(report.metrics).items():
        name = f"clicks_{evaluation.replace('/', '_')}"
        yield name, f"{evaluation}: IoU over clicks, mean and {INTERVAL}", over_clicks(report, marks)
    curves = training_curves(report)
    if curves is not None:
        yield "training", "validation over epochs, mean and range over seeds", curves


def robust_metrics(metrics: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Of each evaluation that has clean images: their metric, and those of the same model on other images."""
    evaluations = [name.removesuffix("/clean") for name in metrics if name.endswith("/clean")]
    others = {
        each: [name for name in metrics if _beside(name, each) and name != f"{each}/clean"] for each in evaluations
    }
    return {each: (f"{each}/clean", names) for each, names in others.items() if names}


def click_metrics(metrics: Sequence[str]) -> dict[str, dict[int, str]]:
    """Of each evaluation the mean IoU after how many clicks, if it is there after three numbers of clicks or more."""
    found: dict[str, dict[int, str]] = {}
    for name in metrics:
        match = re.fullmatch(r"(.+)/miou_(\d+)", name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = name
    return {evaluation: dict(sorted(marks.items())) for evaluation, marks in found.items() if len(marks) > 2}


def over_cost(report: SweepReport, metric: str) -> Figure:
    """A panel for each cost: the metric over it, one point for each setting."""
    figure, panels = _panels(len(report.costs), len(report.groups))
    for axes, cost in zip(panels, report.costs, strict=True):
        label, unit = COSTS[cost]
        for place, group in enumerate(report.groups):
            estimate, value = group.estimate(metric), group.cost(cost)
            if estimate is not None and value is not None:
                _point(axes, value * unit, estimate, place, group)
        axes.set(xlabel=label, ylabel=arrow(metric))
    return _with_legend(figure, panels)


def against(report: SweepReport, metric: str, others: Sequence[str]) -> Figure:
    """A panel for each of ``others``, over ``metric``."""
    figure, panels = _panels(len(others), len(report.groups))
    for axes, other in zip(panels, others, strict=True):
        for place, group in enumerate(report.groups):
            across, up = group.estimate(metric), group.estimate(other)
            if across is not None and up is not None:
                _point(axes, across.mean, up, place, group, across.half_width)
        axes.set(xlabel=arrow(metric), ylabel=arrow(other))
    return _with_legend(figure, panels)


def numeric_axes(report: SweepReport) -> list[str]:
    """The axes with three numbers or more."""
    numbers = {
        axis: {group.values[axis] for group in report.groups if isinstance(group.values[axis], (int, float))}
        for axis in report.plan.names
    }
    return [axis for axis, values in numbers.items() if len(values) > 2]


def over_axis(report: SweepReport, axis: str) -> Figure:
    """A panel for each metric over an axis, a line for each combination of the others."""
    lines: dict[str, list[Group]] = {}
    for group in report.groups:
        if isinstance(group.values[axis], (int, float)):
            rest = {name: value for name, value in group.values.items() if name != axis}
            lines.setdefault(report.called(rest), []).append(group)
    marks = sorted({group.values[axis] for groups in lines.values() for group in groups})
    figure, panels = _panels(len(report.metrics), len(lines))
    for axes, metric in zip(panels, report.metrics, strict=True):
        for place, (label, groups) in enumerate(lines.items()):
            _line(axes, [(group.values[axis], group.estimate(metric)) for group in groups], place, label)
        axes.set(xlabel=report.plan.titles[axis], ylabel=arrow(metric))
        if len(marks) <= MOST_MARKS:
            axes.set_xticks(marks)
    return _with_legend(figure, panels)


def over_clicks(report: SweepReport, marks: Mapping[int, str]) -> Figure:
    """Mean IoU over clicks, a line for each setting."""
    figure, (axes,) = _panels(1, len(report.groups))
    for place, group in enumerate(report.groups):
        _line(axes, [(clicks, group.estimate(metric)) for clicks, metric in marks.items()], place, group.name)
    axes.set(xlabel="clicks", ylabel="mean IoU ↑", xticks=list(marks))
    return _with_legend(figure, [axes])


def training_curves(report: SweepReport) -> Figure | None:
    """Validation quality, or loss, over epochs; None where no run validated."""
    curves = {group.name: list(_curves(report, group)) for group in report.groups}
    names = dict.fromkeys(name for runs in curves.values() for run in runs for name in run)
    metric = next((name for name in names if name.rpartition("/")[2] in QUALITY), next(iter(names), None))
    if metric is None:
        return None
    figure, (axes,) = _panels(1, len(report.groups))
    for place, (label, runs) in enumerate(curves.items()):
        series = [run[metric] for run in runs if metric in run]
        epochs = sorted(set.intersection(*map(set, series))) if series else []
        if epochs:
            values = np.array([[one[epoch] for epoch in epochs] for one in series])
            _band(axes, np.array(epochs) + 1, values.mean(0), (values.min(0), values.max(0)), place, label)
    axes.set(xlabel="epoch", ylabel=arrow(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _with_legend(figure, [axes])


def _curves(report: SweepReport, group: Group) -> Iterator[dict[str, dict[int, float]]]:
    """Of every finished run the validation metrics, each by epoch; of an epoch that was repeated, the last."""
    for row in report.found:
        path = folder_of(report.out, row.run) / "metrics.jsonl"
        if row.run.values != group.values or row.record.status != "done" or not path.is_file():
            continue
        metrics: dict[str, dict[int, float]] = {}
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            for name, value in line["metrics"].items() if line["stage"] == "validate" else ():
                if value is not None and not name.endswith("images_per_second"):
                    metrics.setdefault(name, {})[line["epoch"]] = value
        yield metrics


def _beside(name: str, evaluation: str) -> bool:
    return name.rpartition("/")[0] == evaluation


def _panels(count: int, entries: int) -> tuple[Figure, list[Axes]]:
    across = min(count, 2 if count == 4 else 3)
    down = math.ceil(count / across)
    size = (max(6.4, across * PANEL), down * PANEL * 0.85 + 0.22 * math.ceil(entries / LEGEND))
    figure = Figure(size, dpi=DPI, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[:count]


def _style(place: int) -> dict[str, Any]:
    """Colours come again after ten settings, with other markers."""
    return {"marker": MARKERS[place % len(MARKERS)], "color": f"C{place % 10}", "markersize": 5}


def _point(axes: Axes, x: float, y: Estimate, place: int, group: Group, across: float = math.nan) -> None:
    errors = {key: None if math.isnan(width) else width for key, width in (("xerr", across), ("yerr", y.half_width))}
    axes.errorbar(x, y.mean, **errors, capsize=2, elinewidth=0.8, linestyle="none", label=group.name, **_style(place))


def _line(axes: Axes, points: Sequence[tuple[float, Estimate | None]], place: int, label: str) -> None:
    known = sorted(((x, estimate) for x, estimate in points if estimate is not None), key=lambda point: point[0])
    if known:
        x, mean, width = np.array([(x, estimate.mean, estimate.half_width) for x, estimate in known]).T
        _band(axes, x, mean, (mean - width, mean + width), place, label)


def _band(
    axes: Axes, x: np.ndarray, y: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], place: int, label: str
) -> None:
    axes.plot(x, y, label=label, **_style(place))
    if not np.isnan(bounds).any():
        axes.fill_between(x, *bounds, alpha=0.12, color=f"C{place % 10}", linewidth=0)


def _with_legend(figure: Figure, panels: Sequence[Axes]) -> Figure:
    handles: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        style = {"ncols": LEGEND, "frameon": False, "fontsize": "small"}
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", **style)
    return figure
