"""Draw figures of robustness results without matplotlib's global state."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from attention_zoo.reports.robustness.comparison import Results, columns_of, number, row_labels
from attention_zoo.results.paired_attacks import accuracy_interval
from attention_zoo.results.robustness import Column, RobustnessResult, Row

DPI, FONT, SMALL = 150, 9, 7
MAP, LINE = 2.6, 0.2
"""The width of a map of errors, and the height of one of its lines, in inches."""

PANEL, BARS = 3.2, 2.6
"""The side of a panel of points, and the height of the chart of bars, in inches."""

MOST_MAPS = 4
"""The largest number of maps of errors beside each other; further ones go below."""

MARKERS = "osD^vP*X"


def overview(result: RobustnessResult) -> Figure:
    """Draw bars of all accuracies, and for each row a map of its errors under each corruption at each severity."""
    plain = [column for column in result.columns if not column.corruptions]
    maps = [(row, column) for column in result.columns if column.corruptions for row in result.rows]
    across = min(len(maps), MOST_MAPS)
    lines = math.ceil(len(maps) / MOST_MAPS)
    tallest = max((len(column.corruptions) for _, column in maps), default=0) * LINE + 0.8
    heights = ([BARS] if plain else []) + [tallest * lines] * bool(maps)
    figure = Figure((max(6.4, 1 + across * (MAP + 0.4)), sum(heights)), dpi=DPI, layout="constrained")
    rows: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    parts = np.atleast_1d(rows).tolist()
    if plain:
        _bars(parts.pop(0).subplots(), plain, result.rows)
    if maps:
        _maps(parts.pop(0), maps, lines, across, titled=len(result.rows) > 1)
    return figure


def against_clean(results: Results) -> Figure:
    """Draw a panel for each benchmark and attack: its number over the clean accuracy, with a point for each row."""
    names = [name for name in columns_of(results) if name != "clean"] or ["clean"]
    across = 2 if len(names) == 4 else min(3, len(names))
    down = math.ceil(len(names) / across)
    size = (max(6.4, across * PANEL), down * PANEL + 0.22 * len(row_labels(results)) + 0.2)
    figure = Figure(size, dpi=DPI, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels[len(names) :]:
        axes.remove()
    for name, axes in zip(names, panels, strict=False):
        _points(axes, name, results)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=FONT)
    return figure


def _bars(axes: Axes, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Draw the accuracy of each row in each column, with its interval."""
    width = 0.8 / len(rows)
    for place, row in enumerate(rows):
        scores = [column.score(row.counts[column.name]) for column in columns]
        left = np.arange(len(columns)) + (place - (len(rows) - 1) / 2) * width
        whiskers = np.transpose([_whiskers(column, row) for column in columns])
        style = {"capsize": 2, "elinewidth": 0.8, "capthick": 0.8}
        bars = axes.bar(left, np.nan_to_num(scores), width, label=row.name, yerr=whiskers, error_kw=style)
        axes.bar_label(bars, [number(score) for score in scores], fontsize=SMALL, padding=1)
    titles = ["\n".join(textwrap.wrap(column.title, 16)) for column in columns]
    axes.set_xticks(range(len(columns)), titles, fontsize=FONT)
    axes.set_ylabel("top-1 accuracy, %, 95 % interval", fontsize=FONT)
    axes.set_ylim(0, 108)
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    if len(rows) > 1:
        axes.legend(frameon=False, fontsize=FONT, ncols=len(rows), loc="lower center", bbox_to_anchor=(0.5, 1))


def _whiskers(column: Column, row: Row) -> tuple[float, float]:
    """Return how far the interval of an accuracy reaches down and up, in percent; nothing where nothing was counted."""
    count = row.counts[column.name][0]
    if not count.total:
        return 0.0, 0.0
    low, high = accuracy_interval(count.correct, count.total)
    score = column.score([count])
    return max(0.0, score - low), max(0.0, high - score)


def _maps(part: SubFigure, maps: Sequence[tuple[Row, Column]], lines: int, across: int, *, titled: bool) -> None:
    every = part.subplots(lines, across, squeeze=False)
    for axes in every.flat[len(maps) :]:
        axes.remove()
    for axes, (row, column) in zip(every.flat, maps, strict=False):
        _map(axes, row, column, titled=titled)
        if axes not in every[:, 0]:
            axes.set_yticklabels([])
    image = every[0, 0].images[0]
    bar = part.colorbar(image, ax=every.ravel().tolist()[: len(maps)], shrink=0.6, pad=0.02)
    bar.set_label("top-1 error, %", fontsize=FONT)
    bar.ax.tick_params(labelsize=SMALL)


def _map(axes: Axes, row: Row, column: Column, *, titled: bool) -> None:
    counts = row.counts[column.name]
    errors = np.array([100 * cell.error for cell in counts]).reshape(len(column.corruptions), -1)
    axes.imshow(errors, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
    for (line, place), error in np.ndenumerate(errors):
        colour = "white" if error > 50 else "black"
        text = "-" if math.isnan(error) else f"{error:.0f}"
        axes.text(place, line, text, ha="center", va="center", color=colour, fontsize=SMALL)
    names = [name.replace("_", " ") for name in column.corruptions]
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.set_xticks(range(len(column.severities)), list(map(str, column.severities)), fontsize=SMALL)
    axes.set_xlabel("severity", fontsize=SMALL)
    axes.tick_params(length=0)
    score = f"{column.heading.removesuffix(' ↓')} {number(column.score(counts))}"
    axes.set_title(f"{row.name}\n{score}" if titled else score, fontsize=FONT)


def _points(axes: Axes, name: str, results: Results) -> None:
    shown = None
    for place, (label, result, row) in enumerate(row_labels(results)):
        columns = {column.name: column for column in result.columns}
        style: dict[str, Any] = {"color": f"C{place % 10}", "marker": MARKERS[place % len(MARKERS)], "label": label}
        if name in columns and "clean" in columns:
            shown = columns[name]
            axes.scatter(result.scores[row]["clean"], result.scores[row][name], s=36, **style)
        else:
            axes.scatter([], [], **style)  # so that every panel numbers the rows alike
    axes.set_xlabel("clean accuracy, %", fontsize=FONT)
    axes.set_ylabel(shown.heading if shown else name, fontsize=FONT)
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
