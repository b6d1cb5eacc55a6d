"""Write a sweep's report as files: tables, figures, one page with all of it, and TensorBoard's HParams."""

import base64
import html
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure

from attention_zoo.errors import InputError
from attention_zoo.reports.sweeps.figures import figures
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import numbers_table, runs_table, settings_table
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import remove_events, save, whole
from attention_zoo.runs.files import read_text
from attention_zoo.runs.results import CONFIG
from attention_zoo.sweeps.driver import flat_metrics, folder_of
from attention_zoo.sweeps.plan import PLAN

HPARAMS = "hparams"
"""The name of the folder with the files for TensorBoard."""

STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222}
table {border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto}
th, td {border-bottom: 1px solid #ddd; padding: .3em .7em; text-align: right; white-space: nowrap}
th:first-child, td:first-child {text-align: left}
th {border-bottom: 2px solid #888}
td.reason {white-space: normal; min-width: 25em; text-align: left}
img {max-width: 100%; max-height: 48em}
figure {margin: 2em 0}
figcaption, li {color: #555}
pre {background: #f5f5f5; padding: 1em; overflow-x: auto}
"""


def write_sweep(folder: Path, report: SweepReport) -> None:
    """Write the report on a sweep into a folder, all of it or nothing.

    The files are ``table.md`` for readers and ``table.csv`` for programs, ``runs.csv`` (every run with the numbers of
    its own log), the figures as ``.png``, ``index.html`` with all of it, ``hparams/`` for ``tensorboard --logdir``, and
    what was run: ``sweep.yaml`` and the resolved config of each finished run in ``configs/``.

    Raises:
        InputError: the report cannot be written; the files that were there before are unchanged.
    """
    table, runs = settings_table(report), runs_table(report)
    drawn = list(figures(report))
    with whole(folder) as stage:
        _write(stage, report, table, runs, drawn)
        remove_events(folder / HPARAMS)


def _write(
    folder: Path, report: SweepReport, table: Table, runs: Table, drawn: Sequence[tuple[str, str, Figure]]
) -> None:
    (folder / "table.csv").write_text(numbers_table(report).csv(), encoding="utf-8")
    (folder / "table.md").write_text(table.markdown(), encoding="utf-8")
    (folder / "runs.csv").write_text(runs.csv(), encoding="utf-8")
    for name, _, figure in drawn:
        save(figure, folder / f"{name}.png")
    (folder / "index.html").write_text(page(report, table, runs, drawn), encoding="utf-8")
    write_hparams(folder / HPARAMS, report)
    write_plan(folder, report)


def page(report: SweepReport, table: Table, runs: Table, drawn: Sequence[tuple[str, str, Figure]]) -> str:
    """Return the report as one HTML page that needs no other file."""
    plan = read_text(report.out / PLAN)
    title = f"Sweep {report.out.name}"
    done = sum(row.record.status == "done" for row in report.found)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    shown = "".join(
        f"<figure>{_image(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for _, caption, figure in drawn
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{done} of {len(report.found)} runs done.</p>"
        f"{_html(table)}<ul>{notes}</ul>{shown}<h2>Runs</h2>{_html(runs)}"
        f"<h2>What was run</h2><pre>{html.escape(plan)}</pre></html>\n"
    )


def write_plan(folder: Path, report: SweepReport) -> None:
    """Write the sweep's plan and, where it can be read, the resolved config of each run that is done."""
    (folder / PLAN).write_text(read_text(report.out / PLAN), encoding="utf-8")
    (folder / "configs").mkdir(exist_ok=True)
    for run, record, *_ in report.found:
        if record.status == "done":
            with suppress(InputError):  # the notes of the report say which ones could not be read
                text = read_text(folder_of(report.out, run) / CONFIG)
                (folder / "configs" / f"{run.name}.yaml").write_text(text, encoding="utf-8")


def write_hparams(folder: Path, report: SweepReport) -> None:
    """Write the finished runs in the form of TensorBoard's HParams, each into a folder of its own."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for row in report.found:
        if row.record.status != "done":
            continue
        values = {**{name: _plain(value) for name, value in row.run.values.items()}, "seed": row.run.seed}
        metrics = {name: value for name, value in flat_metrics(row.record).items() if value is not None}
        with SummaryWriter(str(folder / row.run.name)) as writer:
            for summary in hparams(values, metrics):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    kinds = [" class=reason" if name == "reason" else "" for name in table.header]
    rows = [
        "".join(f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        for row in table.rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(figure: Figure) -> str:
    content = io.BytesIO()
    save(figure, content)
    return f'<img src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}" alt="">'
