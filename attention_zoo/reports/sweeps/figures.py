"""Draw figures of a sweep: quality over cost, robust over clean numbers, metrics over an axis or clicks, training."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attention_zoo.reports.clicks.figures import overlay
from attention_zoo.reports.panels import ANY, band, finish, line, panels, point
from attention_zoo.reports.sweeps.report import COSTS, QUALITY, Group, SweepReport
from attention_zoo.runs.results import SPEED, Measurement

MOST_MARKS = 8
"""The largest number of values of an axis that are all marked."""

INTERVAL = "95 % confidence interval over seeds (cut where no value can be)"


def figures(report: SweepReport) -> Iterator[tuple[str, str, Figure]]:
    """Yield the name, caption and figure of each figure that the sweep has data for."""
    metric = report.quality
    if metric is None:
        return
    if report.costs:
        yield "cost", f"quality over cost, mean and {INTERVAL}", over_cost(report, metric)
    for evaluation, (clean, others) in robust_metrics(report.metrics).items():
        name = "robust" + evaluation.removeprefix("robustness").replace("/", "_")
        yield name, f"robust over clean numbers, mean and {INTERVAL}", against(report, clean, others)
    for axis in numeric_axes(report):
        title = report.plan.titles[axis]
        yield f"over_{title}", f"over {title}, mean and {INTERVAL}", over_axis(report, axis)
    for evaluation, marks in click_metrics(report.metrics).items():
        name = f"clicks_{evaluation.replace('/', '_')}"
        yield name, f"{evaluation}: IoU over clicks, mean and {INTERVAL}", over_clicks(report, marks)
    if report.clicks:
        yield (
            "clicks",
            "mean IoU over clicks, every run and setting, with the standard error over trials",
            overlay(report.clicks),
        )
    curves = training_curves(report)
    if curves is not None:
        yield "training", "validation over epochs, mean and range over seeds", curves


def robust_metrics(metrics: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Return, for each evaluation on clean images, the metric on these and the metrics on its other images.

    An evaluation without other images is left out.
    """
    evaluations = [name.removesuffix("/clean") for name in metrics if name.endswith("/clean")]
    others = {
        each: [name for name in metrics if _beside(name, each) and name != f"{each}/clean"] for each in evaluations
    }
    return {each: (f"{each}/clean", names) for each, names in others.items() if names}


def click_metrics(metrics: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return, for each evaluation, the names of its mean IoU metrics by the number of clicks.

    An evaluation with fewer than three numbers of clicks is left out.
    """
    by_evaluation: dict[str, dict[int, str]] = {}
    for name in metrics:
        match = re.fullmatch(r"(.+)/miou_(\d+)", name)
        if match:
            by_evaluation.setdefault(match[1], {})[int(match[2])] = name
    return {evaluation: dict(sorted(marks.items())) for evaluation, marks in by_evaluation.items() if len(marks) > 2}


def over_cost(report: SweepReport, metric: str) -> Figure:
    """Draw a panel for each cost: the metric over the cost, with one point for each setting."""
    figure, every = panels(len(report.costs), len(report.groups))
    for axes, cost in zip(every, report.costs, strict=True):
        label, unit = COSTS[cost]
        for place, group in enumerate(report.groups):
            estimate, value = group.estimate(metric), group.cost(cost)
            if estimate is not None and value is not None:
                point(axes, value * unit, estimate, place, group.name, (ANY, report.limits(metric)))
        axes.set(xlabel=label, ylabel=report.heading(metric))
    return finish(figure, every)


def against(report: SweepReport, metric: str, others: Sequence[str]) -> Figure:
    """Draw a panel for each of ``others``: that metric over ``metric``, with one point for each setting."""
    figure, every = panels(len(others), len(report.groups))
    for axes, other in zip(every, others, strict=True):
        for place, group in enumerate(report.groups):
            across, up = group.estimate(metric), group.estimate(other)
            if across is not None and up is not None:
                point(axes, across, up, place, group.name, (report.limits(metric), report.limits(other)))
        axes.set(xlabel=report.heading(metric), ylabel=report.heading(other))
    return finish(figure, every)


def numeric_axes(report: SweepReport) -> list[str]:
    """Return the names of the axes that have three or more different numbers as values."""
    numbers = {
        axis: {group.values[axis] for group in report.groups if _is_number(group.values[axis])}
        for axis in report.plan.names
    }
    return [axis for axis, values in numbers.items() if len(values) > 2]


def over_axis(report: SweepReport, axis: str) -> Figure:
    """Draw a panel for each metric over an axis, with a line for each combination of the other axes' values."""
    lines: dict[str, list[Group]] = {}
    for group in report.groups:
        if _is_number(group.values[axis]):
            rest = {name: value for name, value in group.values.items() if name != axis}
            lines.setdefault(report.called(rest), []).append(group)
    marks = sorted({group.values[axis] for groups in lines.values() for group in groups})
    figure, every = panels(len(report.metrics), len(lines))
    for axes, metric in zip(every, report.metrics, strict=True):
        for place, (label, groups) in enumerate(lines.items()):
            line(
                axes,
                [(group.values[axis], group.estimate(metric)) for group in groups],
                place,
                label,
                report.limits(metric),
            )
        axes.set(xlabel=report.plan.titles[axis], ylabel=report.heading(metric))
        if len(marks) <= MOST_MARKS:
            axes.set_xticks(marks)
    return finish(figure, every)


def over_clicks(report: SweepReport, marks: Mapping[int, str]) -> Figure:
    """Draw mean IoU (0..1) over the number of clicks, with a line for each setting.

    Args:
        report: the sweep.
        marks: the names of the metrics, by number of clicks.
    """
    figure, (axes,) = panels(1, len(report.groups))
    for place, group in enumerate(report.groups):
        points = [(clicks, group.estimate(metric)) for clicks, metric in marks.items()]
        line(axes, points, place, group.name, (0, 1))
    axes.set(xlabel="clicks", ylabel="mean IoU ↑", xticks=list(marks))
    return finish(figure, [axes])


def training_curves(report: SweepReport) -> Figure | None:
    """Draw one validation metric over epochs, with a line for each setting; None where no run validated.

    The metric is one that tasks are judged by, or else the first that was measured. A line is the mean over seeds, its
    band the range.
    """
    curves = {group.name: list(_curves(report, group)) for group in report.groups}
    names = dict.fromkeys(name for runs in curves.values() for run in runs for name in run)
    metric = next((name for name in names if name.rpartition("/")[2] in QUALITY), next(iter(names), None))
    if metric is None:
        return None
    figure, (axes,) = panels(1, len(report.groups))
    for place, (label, runs) in enumerate(curves.items()):
        series = [run[metric] for run in runs if metric in run]
        epochs = sorted(set.intersection(*map(set, series))) if series else []
        if epochs:
            values = np.array([[one[epoch] for epoch in epochs] for one in series])
            band(axes, np.array(epochs) + 1, values.mean(0), (values.min(0), values.max(0)), place, label)
    axes.set(xlabel="epoch", ylabel=report.heading(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finish(figure, [axes])


def _curves(report: SweepReport, group: Group) -> Iterator[dict[str, dict[int, float]]]:
    """Yield, for every finished run of a setting, its validation metrics by name, each by epoch."""
    for row in report.found:
        if row.run.values == group.values and row.record.status == "done":
            yield curves_of(report.measured(row.run))


def curves_of(measured: Sequence[Measurement]) -> dict[str, dict[int, float]]:
    """Return the validation metrics of a run by name, each by epoch; the last values of an epoch that was repeated."""
    metrics: dict[str, dict[int, float]] = {}
    for measurement in measured:
        if measurement.stage == "validate" and measurement.epoch is not None:
            for name, value in measurement.metrics.items():
                if value is not None and not name.endswith(SPEED):
                    metrics.setdefault(name, {})[measurement.epoch] = value
    return metrics


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _beside(name: str, evaluation: str) -> bool:
    return name.rpartition("/")[0] == evaluation
