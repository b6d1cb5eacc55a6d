"""The tables, the figure and the JSON of what `attention_zoo.analysis.premises` found in several models."""

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attention_zoo.analysis.premises import ANY, Finding
from attention_zoo.reports.panels import DPI, PANEL, band, finish, visible
from attention_zoo.reports.table import Table

LONG = (
    "model",
    "reading",
    "measure",
    "layer",
    "mean",
    "deviation",
    "compared with",
    "better",
    "holds",
    "counted",
    "of",
)
COMPARED = "what the premise compares with"
ACROSS = 4
"""The number of panels in a row of the figure."""
TITLE = 36
"""The number of letters in a line of a panel's title."""
BANDS = 4
"""The most models of a panel that have a band; more would hide each other."""
LOGARITHMIC = 100.0
"""The quotient of the largest and the least value from which steps are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Subject:
    """A model and what was found in it.

    Attributes:
        name: the name it has in tables, one of its own.
        found: what was found, layer by layer.
        premises: the premise of each reading, in a sentence.
        about: further facts for the JSON, such as the checkpoint and the data.
    """

    name: str
    found: Sequence[Finding]
    premises: dict[str, str]
    about: dict[str, Any] = field(default_factory=dict)


def premise_json(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return all that was found as plain values, a record for each model."""
    return [
        {"name": s.name, **s.about, "premises": s.premises, "findings": [asdict(found) for found in s.found]}
        for s in subjects
    ]


def long_table(subjects: Sequence[Subject]) -> Table:
    """Return a table with a row for each model, measure and layer, for programs."""
    rows = [
        (
            subject.name,
            found.reading,
            found.measure,
            str(found.layer),
            *map(_cell, (found.mean, found.deviation, found.reference)),
            found.better or "",
            _cell(found.holds),
            str(found.counted),
            str(found.total),
        )
        for subject in subjects
        for found in found_in_order(subject)
    ]
    return Table(LONG, tuple(rows))


def wide_table(subjects: Sequence[Subject], notes: Sequence[str] = ()) -> Table:
    """Return a table with a row for each measure and model and a column for each layer.

    A cell is the mean, and where the premise compares it, with what, and in what share of images and heads it holds.
    """
    layers = sorted({found.layer for subject in subjects for found in subject.found})
    rows = []
    for reading, measure in measured(subjects):
        for subject in subjects:
            own = {f.layer: f for f in subject.found if (f.reading, f.measure) == (reading, measure)}
            if own:
                cells = tuple(_short(own.get(layer)) for layer in layers)
                rows.append((measure, reading, subject.name, *cells))
    premises = {reading: text for subject in subjects for reading, text in subject.premises.items()}
    said = [f"{reading}: {text}" for reading, text in premises.items()]
    header = ("measure", "premise of", "model", *(f"layer {layer}" for layer in layers))
    return Table(header, tuple(rows), (*notes, *said, *missing(subjects)))


def missing(subjects: Sequence[Subject]) -> list[str]:
    """Return a line for each measure of a model that some image and head does not define."""
    lines = []
    for subject in subjects:
        short: dict[str, int] = {}
        for found in subject.found:
            short[found.measure] = short.get(found.measure, 0) + found.total - found.counted
        lines += [
            f"{subject.name}, {measure}: left out where it is not defined, {count} times"
            for measure, count in short.items()
            if count
        ]
    return lines


def measured(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """Return each reading and measure once, those of any reading first."""
    pairs = dict.fromkeys((found.reading, found.measure) for subject in subjects for found in subject.found)
    return sorted(pairs, key=lambda pair: pair[0] != ANY)


def found_in_order(subject: Subject) -> list[Finding]:
    """Return what was found in a model, by measure and then by layer."""
    place = {pair: index for index, pair in enumerate(measured([subject]))}
    return sorted(subject.found, key=lambda found: (place[found.reading, found.measure], found.layer))


def premise_figure(subjects: Sequence[Subject]) -> Figure:
    """Draw a panel for each measure: its mean over the layers, a colour for each model; a band is of one deviation.

    Readings share the panel of a measure unless a model has it of several. A dashed line is what the premise compares
    with. A measure with steps has a second panel, over these, with a line for each layer, later ones fainter.
    """
    shared = [(panel, False) for panel in panels_of(subjects)]
    titles = shared + [(panel, True) for panel, _ in shared if any(f.path for s in subjects for f in _own(s, panel))]
    down = math.ceil(len(titles) / ACROSS)
    figure = Figure((ACROSS * PANEL, down * PANEL * 0.85 + 0.3), dpi=DPI, layout="constrained")
    every = figure.subplots(down, ACROSS, squeeze=False).flatten().tolist()
    for axes in every[len(titles) :]:
        axes.remove()
    for axes, (panel, steps) in zip(every, titles, strict=False):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(_title(panel), fontsize="small")
        axes.set_xlabel("step" if steps else "layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn = [(place, subject, own) for place, subject in enumerate(subjects) if (own := _own(subject, panel))]
        for place, subject, own in drawn:
            if steps:
                _draw_steps(axes, own, place, subject.name)
            else:
                _draw_layers(axes, own, place, subject.name, bands=len(drawn) <= BANDS)
        if steps and _spans_magnitudes([own for _, _, own in drawn]):
            axes.set_yscale("log")
    return finish(figure, every[: len(titles)])


Panel = tuple[tuple[str, ...], str]
"""The readings that share a panel, and the measure that it shows."""


def panels_of(subjects: Sequence[Subject]) -> list[Panel]:
    """Return each measure with all readings that have it, or with one at a time where a model has it of several."""
    readings: dict[str, list[str]] = {}
    for reading, measure in measured(subjects):
        readings.setdefault(measure, []).append(reading)
    several = {
        measure
        for subject in subjects
        for measure, count in Counter(measure for _, measure in measured([subject])).items()
        if count > 1
    }
    panels: list[Panel] = []
    for measure, found in readings.items():
        if measure in several:
            panels += [((reading,), measure) for reading in found]
        else:
            panels.append((tuple(found), measure))
    return panels


def _own(subject: Subject, panel: Panel) -> list[Finding]:
    """Return what a panel shows of a model, by layer."""
    readings, measure = panel
    return sorted((f for f in subject.found if f.measure == measure and f.reading in readings), key=lambda f: f.layer)


def _title(panel: Panel) -> str:
    readings, measure = panel
    return "\n".join(map(partial(textwrap.fill, width=TITLE), (measure, f"({', '.join(readings)})")))


def _draw_layers(axes: Axes, own: Sequence[Finding], place: int, name: str, *, bands: bool) -> None:
    """Draw one measure of a model over its layers, and what it is compared with."""
    known = [(f.layer, f.mean, (f.deviation or 0.0) if bands else math.nan) for f in own if f.mean is not None]
    if known:
        x, mean, deviation = np.array(known).T
        band(axes, x, mean, (mean - deviation, mean + deviation), place, name)
    references = [(f.layer, f.reference) for f in own if f.reference is not None]
    if references:
        axes.plot(*np.array(references).T, linestyle="--", color=f"C{place % 10}", linewidth=1, label=COMPARED)


def _draw_steps(axes: Axes, own: Sequence[Finding], place: int, name: str) -> None:
    """Draw one measure of a model over its steps, with a line for each layer."""
    for order, found in enumerate(own):
        steps = [(step, value) for step, value in enumerate(found.path or ()) if value is not None]
        if steps:
            label = visible(name) if order == 0 else None
            alpha = 1 - 0.7 * order / max(1, len(own) - 1)
            axes.plot(*np.array(steps).T, color=f"C{place % 10}", marker=".", alpha=alpha, label=label)


def _spans_magnitudes(every: Sequence[Sequence[Finding]]) -> bool:
    """Return whether the steps of several models are all positive and far from each other."""
    values = [value for own in every for found in own for value in found.path or () if value is not None]
    return bool(values) and min(values) > 0 and max(values) > LOGARITHMIC * min(values)


def _cell(value: float | None) -> str:
    """Return a number in full for programs, empty where there is none."""
    return "" if value is None else f"{value:.6g}"


def _short(found: Finding | None) -> str:
    """Return a mean in three digits, with the reference and the share of images and heads where the premise holds."""
    if found is None or found.mean is None:
        return "-"
    if found.holds is None or found.reference is None:
        return f"{found.mean:.3g}"
    return f"{found.mean:.3g} vs {found.reference:.3g}, {100 * found.holds:.0f}%"
