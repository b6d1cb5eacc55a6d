"""Panels of points and lines with intervals and one legend, which figures of sweeps and of runs share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from attention_zoo.reports.statistics import Estimate

DPI, PANEL = 150, 3.4
"""The resolution in dots per inch, and the side of a panel in inches."""

MARKERS = "os^D*vPXdh<>p"

LEGEND = 3
"""The number of columns of a legend."""

LEAST_RANGE = 0.02
"""An axis spans at least this fraction of its largest value, so that values that hardly differ look alike, and its
numbers need no offset."""

Limits = tuple[float, float]
"""The least and the largest value that a metric can have."""

ANY: Limits = (-math.inf, math.inf)


def panels(count: int, entries: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels and room below for a legend of ``entries``, and the axes of the panels."""
    across = min(count, 2 if count == 4 else 3)
    down = math.ceil(count / across)
    size = (max(6.4, across * PANEL), down * PANEL * 0.85 + 0.22 * math.ceil(entries / LEGEND))
    figure = Figure(size, dpi=DPI, layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.1, h_pad=0.06)
    every = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for axes in every[count:]:
        axes.remove()
    for axes in every[:count]:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every[:count]


def point(axes: Axes, x: float | Estimate, y: Estimate, place: int, label: str, limits: Sequence[Limits]) -> None:
    """Draw a point with its confidence intervals, cut at the limits of x and of y.

    Args:
        axes: the panel.
        x: a number, or an estimate with an interval of its own.
        y: the estimate on the vertical axis.
        place: the place of the setting in the legend, which gives the colour and the marker.
        label: the label in the legend.
        limits: the limits of x, then those of y.
    """
    across = x if isinstance(x, Estimate) else Estimate(x, math.nan, 1)
    bars = zip(("xerr", "yerr"), (across, y), limits, strict=True)
    errors: dict[str, Any] = {key: _error(value, ends) for key, value, ends in bars}
    style: dict[str, Any] = {"capsize": 2, "elinewidth": 0.8, "linestyle": "none", **_style(place)}
    axes.errorbar(across.mean, y.mean, **errors, label=visible(label), **style)


def line(
    axes: Axes, points: Sequence[tuple[float, Estimate | None]], place: int, label: str, limits: Limits = ANY
) -> None:
    """Draw a line through the means, with a band of their confidence intervals cut at the limits."""
    known = sorted(((x, estimate) for x, estimate in points if estimate is not None), key=lambda entry: entry[0])
    if known:
        x, mean, width = np.array([(x, estimate.mean, estimate.half_width) for x, estimate in known]).T
        low, high = np.minimum(limits[0], mean), np.maximum(limits[1], mean)
        band(axes, x, mean, (np.maximum(mean - width, low), np.minimum(mean + width, high)), place, label)


def band(
    axes: Axes, x: np.ndarray, y: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], place: int, label: str
) -> None:
    """Draw a line with a band between ``bounds`` (lower, upper); no band where a bound is NaN."""
    axes.plot(x, y, label=visible(label), **_style(place))
    if not np.isnan(bounds).any():
        axes.fill_between(x, *bounds, alpha=0.12, color=f"C{place % 10}", linewidth=0)


def finish(figure: Figure, every: Sequence[Axes]) -> Figure:
    """Give the axes plain numbers and a sensible range, add the legend, and return the figure."""
    handles: dict[str, Any] = {}
    for axes in every:
        _plain_numbers(axes)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        style: dict[str, Any] = {"ncols": LEGEND, "frameon": False, "fontsize": "small"}
        figure.legend(list(handles.values()), list(handles), loc="outside lower left", **style)
    return figure


def visible(label: str) -> str:
    """Return a label that matplotlib shows; it would leave one that starts with an underscore out of the legend."""
    return f" {label}" if label.startswith("_") else label


def _style(place: int) -> dict[str, Any]:
    """Return the colour and marker of the setting at a place; colours repeat after ten, with other markers."""
    return {"marker": MARKERS[place % len(MARKERS)], "color": f"C{place % 10}", "markersize": 5}


def _error(value: Estimate, limits: Limits) -> list[list[float]] | None:
    """Return the lengths of an interval below and above its mean, cut at the limits; None where there is none."""
    if math.isnan(value.half_width):
        return None
    low, high = min(limits[0], value.mean), max(limits[1], value.mean)
    lower, upper = max(low, value.mean - value.half_width), min(high, value.mean + value.half_width)
    return [[value.mean - lower], [upper - value.mean]]


def _plain_numbers(axes: Axes) -> None:
    """Write the numbers of both axes without an offset, which would cover the label."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        least = LEAST_RANGE * max(abs(low), abs(high))
        if high - low < least:
            middle = (low + high) / 2
            axis.set_view_interval(middle - least / 2, middle + least / 2, ignore=True)
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            formatter.set_useOffset(False)
    locator = axes.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(nbins=4)
