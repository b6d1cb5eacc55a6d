"""The figure of all claims that were measured: the paper's difference and ours, with its interval."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from attention_zoo.claims.schema import Measure
from attention_zoo.claims.verdicts import Outcome, Verdict
from attention_zoo.reports.panels import DPI

WIDTH, ROW, MARGIN = 9.0, 0.21, 1.1
"""The width of the figure, the height of a claim's row, and the height of a panel beside its rows, in inches."""

COLOURS = {
    Verdict.HELD: "tab:green",
    Verdict.NOT_HELD: "tab:red",
    Verdict.WITHIN_NOISE: "tab:blue",
    Verdict.TOO_FEW: "tab:blue",
}
"""The colour of our difference, by the verdict."""

PAPER: dict[str, Any] = {"marker": "D", "color": "tab:orange", "markersize": 4, "linestyle": "none"}
"""The style of the paper's difference."""

LINEAR = {"points": 2.0, "percent": 20.0}
"""The difference up to which an axis is linear; beyond it is logarithmic, since there are large and small ones."""

TITLES: dict[Measure, str] = {"points": "difference, percentage points", "percent": "difference, % of the baseline"}
TICKS = {"points": (1, 2, 5, 10, 20, 50, 100), "percent": (10, 20, 50, 100, 200, 500, 1000)}


def claims_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Draw a panel for each measure, with a row for each claim that was measured.

    Differences are turned so that positive ones are as claimed; those of claims that nothing changes stay as they are.
    """
    shown = [outcome for outcome in outcomes if outcome.ours is not None]
    measures: list[Measure] = [each for each in TITLES if any(outcome.claim.measure == each for outcome in shown)]
    groups = [[outcome for outcome in shown if outcome.claim.measure == measure] for measure in measures]
    heights = [len(group) * ROW + MARGIN for group in groups]
    figure = Figure((WIDTH, max(2.0, sum(heights))), dpi=DPI, layout="constrained")
    if groups:
        every = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights).flatten().tolist()
        for axes, measure, group in zip(every, measures, groups, strict=True):
            _panel(axes, measure, group)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return figure


def _panel(axes: Axes, measure: Measure, outcomes: Sequence[Outcome]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.06)
    for row, outcome in enumerate(outcomes):
        if row and outcomes[row - 1].claim.document != outcome.claim.document:
            axes.axhline(row - 0.5, color="0.6", linewidth=0.6)
        _row(axes, row, outcome)
    axes.set_yticks(range(len(outcomes)), [outcome.name for outcome in outcomes], fontsize="small")
    axes.set_ylim(len(outcomes) - 0.5, -0.5)
    axes.set_xlabel(f"{TITLES[measure]}: as claimed to the right →")
    axes.set_xscale("symlog", linthresh=LINEAR[measure])
    reach = max(abs(end) for end in axes.get_xlim())
    ticks = [tick for tick in TICKS[measure] if tick <= reach]
    axes.xaxis.set_major_locator(FixedLocator([-tick for tick in reversed(ticks)] + [0, *ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _row(axes: Axes, row: int, outcome: Outcome) -> None:
    claim, ours = outcome.claim, outcome.ours
    turn = claim.way or 1
    if claim.tolerance is not None:
        axes.barh(row, 2 * claim.tolerance, left=-claim.tolerance, height=0.7, color="0.88", zorder=0)
    if claim.paper_difference is not None:
        axes.plot(turn * claim.paper_difference, row, **PAPER)
    if ours is not None:
        width = 0.0 if math.isnan(ours.half_width) else ours.half_width
        colour = COLOURS[outcome.verdict]
        face = "white" if outcome.verdict is Verdict.TOO_FEW else colour
        style: dict[str, Any] = {"markersize": 4.5, "elinewidth": 1.2, "capsize": 2, "markerfacecolor": face}
        axes.errorbar(turn * ours.mean, row, xerr=width, fmt="o", color=colour, **style)


def _legend() -> list[Line2D]:
    handles = [Line2D([], [], label="paper", **PAPER)]
    for verdict, colour in COLOURS.items():
        face = "white" if verdict is Verdict.TOO_FEW else colour
        style: dict[str, Any] = {"marker": "o", "color": colour, "markerfacecolor": face, "markersize": 4.5}
        handles.append(Line2D([], [], linestyle="none", label=str(verdict), **style))
    return handles
