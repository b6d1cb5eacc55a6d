"""``python -m attention_zoo report``: results of several runs in one table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attention_zoo.cli.console import print_table
from attention_zoo.cli.failure import one_line
from attention_zoo.errors import InputError
from attention_zoo.sweeps.plan import PLAN

if TYPE_CHECKING:
    from attention_zoo.reports import Table


def report(paths: list[str], *, out: str | None = None, mixed: bool = False, overwrite: bool = False) -> None:
    """Report on a sweep, or join the results of several runs into one table (csv, markdown) and figure.

    Of a sweep, from its folder: means over seeds, what is more than noise, cost beside quality, curves; at any time.
    Of runs, what they reached, what they cost, and their training curves; or, where all have them, their results of
    robustness or of interactive segmentation, as a test leaves them. Numbers that were not found under the same
    protocol are not put into one table, unless asked for. A file that cannot be read is named and left out.

    Args:
        paths: folder of a sweep; or folders of runs or of evaluations, or their metrics.jsonl, robustness.json or
            clicks.json; they come before the options.
        out: folder to write to (default: report, of a sweep in its folder, where it is brought up to date).
        mixed: put different protocols into one table, with notes that say what differs.
        overwrite: whether ``out`` may hold something already.
    """
    if not paths:
        raise InputError("nothing to report on: python -m attention_zoo report RUN [RUN ...] [options]")
    folders = [Path(path) for path in paths]
    if any((folder / PLAN).exists() for folder in folders):
        if len(folders) > 1:
            raise InputError(f"one sweep at a time: {', '.join(paths)}")
        report_on(folders[0], None if out is None else _writable(Path(out), overwrite))
    else:
        _join(folders, Path(out or "report"), mixed, overwrite)


def report_on(sweep: Path, folder: Path | None = None) -> None:
    """Write the report on a sweep, by default into its own folder, and print the table."""
    from attention_zoo.reports.sweep import SweepReport
    from attention_zoo.reports.sweep_files import write_sweep
    from attention_zoo.reports.sweep_tables import settings_table

    found = SweepReport(sweep)
    _tell(found.left_out)
    if folder is None and (sweep / "report").is_symlink():
        raise InputError(f"{sweep / 'report'} is a link, which is not followed; name a folder with --out")
    folder = folder or sweep / "report"
    write_sweep(folder, found)
    # with the costs it would be wider than a terminal
    print_table(settings_table(found, with_costs=False), f"written, with costs and figures, to {folder}")


def _join(folders: list[Path], out: Path, mixed: bool, overwrite: bool) -> None:
    from attention_zoo import reports  # drawing takes seconds to import
    from attention_zoo.reports import clicks

    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist")
    left_out: list[str] = []
    if all(map(clicks.holds_result, folders)):
        found = clicks.read_results(folders, left_out)
        clicks.check_comparable(found, mixed=mixed)
        table = clicks.write_comparison(_writable(out, overwrite), found)
    elif all(map(reports.holds_result, folders)):
        results = reports.read_results(folders, left_out)
        table = reports.compare(results, mixed=mixed)
        reports.write_comparison(_writable(out, overwrite), results, table)
    else:
        table = _join_runs(folders, out, mixed, overwrite, left_out)
    _tell(left_out)
    print_table(table, f"written to {out}")


def _join_runs(folders: list[Path], out: Path, mixed: bool, overwrite: bool, left_out: list[str]) -> "Table":
    """Report on what every training leaves, where there is no result of one kind in all."""
    from attention_zoo import reports
    from attention_zoo.reports import clicks, runs

    kinds = {reports.RESULT: reports.holds_result, clicks.RESULT: clicks.holds_result}
    for folder in folders:
        if not runs.holds_run(folder):
            others = [f"{other} has {name}" for name, holds in kinds.items() for other in folders if holds(other)]
            files = f"no {runs.METRICS}, {reports.RESULT} or {clicks.RESULT}, which training and tests write"
            raise InputError(f"nothing to report on in {folder}: {files}{'; ' if others else ''}{', '.join(others)}")
    found = runs.read_runs(folders, left_out)
    runs.check_comparable(found, mixed=mixed)
    notes = [
        f"{folder} has {name} too, not shown" for name, holds in kinds.items() for folder in folders if holds(folder)
    ]
    table = runs.runs_table(found, left_out, notes)
    runs.write_runs(_writable(out, overwrite), found, table)
    return table


def _tell(left_out: list[str]) -> None:
    for problem in dict.fromkeys(left_out):
        sys.stderr.write(f"warning: left out: {one_line(problem)}\n")


def _writable(folder: Path, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty; choose another folder with --out, or give --overwrite true")
    return folder
