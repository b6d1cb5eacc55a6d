"""Write a sweep's report as files: tables, figures, one page with all of it, and TensorBoard's HParams."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure

from attention_zoo.errors import InputError
from attention_zoo.reports.sweeps.figures import figures
from attention_zoo.reports.sweeps.page import page
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import numbers_table, runs_table, settings_table
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import remove_events, save, whole
from attention_zoo.runs.files import read_text
from attention_zoo.runs.results import CONFIG
from attention_zoo.sweeps.driver import flat_metrics, folder_of
from attention_zoo.sweeps.plan import PLAN

PAGE = "index.html"
"""The name of the page with all of the report."""

HPARAMS = "hparams"
"""The name of the folder with the files for TensorBoard."""


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
    (folder / PAGE).write_text(page(report, table, runs, drawn), encoding="utf-8")
    write_hparams(folder / HPARAMS, report)
    write_plan(folder, report)


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
