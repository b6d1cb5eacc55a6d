"""The report on a sweep as one HTML page that needs no other file: tables that sort by a click and figures."""

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from matplotlib.figure import Figure

from attention_zoo.reports.statistics import Difference, Estimate
from attention_zoo.reports.sweeps.report import COSTS, Group, SweepReport
from attention_zoo.reports.table import Table
from attention_zoo.reports.words import in_words
from attention_zoo.reports.writing import save
from attention_zoo.runs.files import read_text
from attention_zoo.sweeps.driver import flat_metrics
from attention_zoo.sweeps.plan import PLAN

REASON = "reason"
"""The heading of the column with the reasons of failures, whose cells may have several lines."""
WIDTH = 2000
"""The least width of a figure in pixels: figures fill the page, also on screens of twice its pixels."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        value: the number that the table is sorted by; None sorts by the text.
    """

    text: str
    value: float | None = None


def page(report: SweepReport, table: Table, runs: Table, drawn: Sequence[tuple[str, str, Figure]]) -> str:
    """Return the report as one HTML page that needs no other file.

    Args:
        report: the report.
        table: its table of settings, whose notes the page has.
        runs: its table of runs.
        drawn: name, caption and figure of each of its figures.
    """
    static = files(__package__) / "static"
    style, script = ((static / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    title = f"Sweep {report.out.name}"
    done = sum(row.record.status == "done" for row in report.found)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    shown = "".join(
        f"<figure>{_image(figure, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for _, caption, figure in drawn
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1><p>{done} of {len(report.found)} runs done.</p>"
        f"{_html(*settings_cells(report))}<ul>{notes}</ul>{shown}<h2>Runs</h2>{_html(*runs_cells(report, runs))}"
        f"<h2>What was run</h2><pre>{html.escape(read_text(report.out / PLAN))}</pre>"
        f"<script type=module>{script}</script></html>\n"
    )


def settings_cells(report: SweepReport) -> tuple[list[str], list[list[Cell]]]:
    """Return the headings and the rows of the table of settings: means, differences to a baseline, costs."""
    headings = [", ".join(report.plan.titles.values()) or "setting", "seeds"]
    for metric in report.metrics:
        headings += [
            report.heading(metric),
            *([f"to {report.baseline}"] if report.baseline else []),
        ]
    headings += [COSTS[name][0] for name in report.costs]
    compared = {metric: report.against_baseline(metric) for metric in report.metrics}
    extremes = {metric: report.extremes(metric) for metric in report.metrics}
    rows = []
    for group in report.groups:
        row = [Cell(group.name), Cell(str(len(group.metrics)), len(group.metrics))]
        for metric in report.metrics:
            row.append(_mean(group.estimate(metric), extremes[metric].get(group.name)))
            row += [_difference(compared[metric].get(group.name))] if report.baseline else []
        rows.append(row + [_cost(group, name) for name in report.costs])
    return headings, rows


def runs_cells(report: SweepReport, runs: Table) -> tuple[list[str], list[list[Cell]]]:
    """Return the headings and the rows of the table of runs, its metrics in words; reasons only where a run has one."""
    kept = [place for place, name in enumerate(runs.header) if name != REASON or any(row[place] for row in runs.rows)]
    header = [runs.header[place] for place in kept]
    metrics = {name for row in report.found for name in flat_metrics(row.record)}
    words = in_words(name for name in header if name in metrics)
    return [words.get(name, name) for name in header], [[_number(row[place]) for place in kept] for row in runs.rows]


def _mean(estimate: Estimate | None, mark: str | None) -> Cell:
    if estimate is None:
        return Cell("")
    return Cell(f"{estimate}{f' ({mark})' if mark else ''}", estimate.mean)


def _difference(difference: Difference | None) -> Cell:
    """Return a difference, with the sign that print has for minus."""
    if difference is None or math.isnan(difference.mean):
        return Cell("")
    text = str(difference)
    return Cell(text.replace("-", "\N{MINUS SIGN}", 1) if difference.mean < 0 else text, difference.mean)


def _cost(group: Group, name: str) -> Cell:
    value = group.cost(name)
    return Cell("") if value is None else Cell(f"{value * COSTS[name][1]:.4g}", value)


def _number(text: str) -> Cell:
    """Return a cell of the table of runs; numbers, which that table has in full, are shown with four digits."""
    try:
        value = float(text)
    except ValueError:
        return Cell(text)
    return Cell(text if value.is_integer() else f"{value:.4g}", value)


def _html(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    names = [re.sub(" (?=[↑↓]$)", "\N{NO-BREAK SPACE}", name) for name in headings]
    head = "".join(f"<th scope=col><button>{html.escape(name)}</button></th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_td, headings, row))}</tr>" for row in rows)
    return f"<div class=scroll tabindex=0><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _td(heading: str, cell: Cell) -> str:
    kind = f" class={REASON}" if heading == REASON else ""
    value = "" if cell.value is None or not math.isfinite(cell.value) else f" data-value={cell.value!r}"
    return f"<td{kind}{value}>{html.escape(cell.text)}</td>"


def _image(figure: Figure, caption: str) -> str:
    content = io.BytesIO()
    figure.set_dpi(max(figure.get_dpi(), WIDTH / figure.get_figwidth()))
    save(figure, content)
    picture = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/png;base64,{picture}" alt="{html.escape(caption)}">'
