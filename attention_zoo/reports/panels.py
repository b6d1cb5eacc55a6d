"""Panels of points and lines with intervals and one legend, as figures of sweeps and of runs share them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from attention_zoo.reports.statistics import Estimate

DPI, PANEL = 150, 3.4
"""Dots per inch; inches of a panel's side."""

MARKERS = "os^D*vPXdh<>p"

LEGEND = 3
"""Columns of a legend."""

LEAST_RANGE = 0.02
"""An axis shows at least so much of its largest value, so that values that hardly differ look alike, and its numbers
need no offset."""

Limits = tuple[float, float]
"""Values that a metric cannot leave."""

ANY: Limits = (-math.inf, math.inf)


def panels(count: int, entries: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, and room for a legend of so many entries below."""
    across = min(count, 2 if count == 4 else 3)
    down = math.ceil(count / across)
    size = (max(6.4, across * PANEL), down * PANEL * 0.85 + 0.22 * math.ceil(entries / LEGEND))
    figure = Figure(size, dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    every = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in every[count:]:
        axes.remove()
    for axes in every[:count]:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every[:count]


def point(axes: Axes, x: float | Estimate, y: Estimate, place: int, label: str, limits: Sequence[Limits]) -> None:
    """A point with its intervals, which end at the limits of x and of y."""
    across = x if isinstance(x, Estimate) else Estimate(x, math.nan, 1)
    errors = {key: _error(value, ends) for key, value, ends in zip(("xerr", "yerr"), (across, y), limits, strict=True)}
    style = {"capsize": 2, "elinewidth": 0.8, "linestyle": "none", **_style(place)}
    axes.errorbar(across.mean, y.mean, **errors, label=visible(label), **style)


def line(
    axes: Axes, points: Sequence[tuple[float, Estimate | None]], place: int, label: str, limits: Limits = ANY
) -> None:
    """A line with a band of the intervals, which ends at the limits."""
    known = sorted(((x, estimate) for x, estimate in points if estimate is not None), key=lambda entry: entry[0])
    if known:
        x, mean, width = np.array([(x, estimate.mean, estimate.half_width) for x, estimate in known]).T
        low, high = np.minimum(limits[0], mean), np.maximum(limits[1], mean)
        band(axes, x, mean, (np.maximum(mean - width, low), np.minimum(mean + width, high)), place, label)


def band(
    axes: Axes, x: np.ndarray, y: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], place: int, label: str
) -> None:
    """A line with a band; without one where a bound is not known."""
    axes.plot(x, y, label=visible(label), **_style(place))
    if not np.isnan(bounds).any():
        axes.fill_between(x, *bounds, alpha=0.12, color=f"C{place % 10}", linewidth=0)


def finish(figure: Figure, every: Sequence[Axes]) -> Figure:
    """Give the axes plain numbers and a sensible range, and the figure its legend."""
    handles: dict[str, object] = {}
    for axes in every:
        _plain_numbers(axes)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        style = {"ncols": LEGEND, "frameon": False, "fontsize": "small"}
        figure.legend(list(handles.values()), list(handles), loc="outside lower left", **style)
    return figure


def visible(label: str) -> str:
    """A label that matplotlib shows: one that starts with an underscore it would leave out of the legend."""
    return f" {label}" if label.startswith("_") else label


def _style(place: int) -> dict[str, Any]:
    """Colours come again after ten settings, with other markers."""
    return {"marker": MARKERS[place % len(MARKERS)], "color": f"C{place % 10}", "markersize": 5}


def _error(value: Estimate, limits: Limits) -> list[list[float]] | None:
    """Lengths of an interval below and above its mean, cut where no value can be."""
    if math.isnan(value.half_width):
        return None
    low, high = min(limits[0], value.mean), max(limits[1], value.mean)
    lower, upper = max(low, value.mean - value.half_width), min(high, value.mean + value.half_width)
    return [[value.mean - lower], [upper - value.mean]]


def _plain_numbers(axes: Axes) -> None:
    """Numbers without an offset, which would stand on the label."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        least = LEAST_RANGE * max(abs(low), abs(high))
        if high - low < least:
            middle = (low + high) / 2
            axis.set_view_interval(middle - least / 2, middle + least / 2, ignore=True)
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            formatter.set_useOffset(False)
    if isinstance(axes.xaxis.get_major_locator(), MaxNLocator):
        axes.xaxis.get_major_locator().set_params(nbins=4)
