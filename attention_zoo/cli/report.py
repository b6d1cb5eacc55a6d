"""``python -m attention_zoo report``: results of several runs in one table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from attention_zoo.cli.console import print_table
from attention_zoo.cli.errors import one_line
from attention_zoo.errors import InputError
from attention_zoo.sweeps.plan import PLAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attention_zoo.evaluation import Result
    from attention_zoo.reports.table import Table


def report(paths: list[str], *, out: str | None = None, mixed: bool = False, overwrite: bool = False) -> None:
    """Report on a sweep, or join the results of several runs into one table (csv, markdown) and figure.

    Of a sweep, from its folder: means over seeds, what is more than noise, cost beside quality, curves; at any time.
    Of runs, what they reached, what they cost, and their training curves; or, where all have them, their results of
    one evaluation, such as robustness or interactive segmentation, as a test leaves them. Numbers that were not found
    under the same protocol are not put into one table, unless asked for. A file that cannot be read is named and left
    out.

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
    from attention_zoo.reports.sweeps.files import write_sweep
    from attention_zoo.reports.sweeps.report import SweepReport
    from attention_zoo.reports.sweeps.tables import settings_table

    found = SweepReport(sweep)
    _tell(found.left_out)
    if folder is None and (sweep / "report").is_symlink():
        raise InputError(f"{sweep / 'report'} is a link, which is not followed; name a folder with --out")
    folder = folder or sweep / "report"
    write_sweep(folder, found)
    # with the costs it would be wider than a terminal
    print_table(settings_table(found, with_costs=False), f"written, with costs and figures, to {folder}")


def _join(folders: list[Path], out: Path, mixed: bool, overwrite: bool) -> None:
    import tasks  # noqa: F401  so that the results of its evaluations are known
    from attention_zoo.evaluation import read_results, result_kinds

    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder} does not exist")
    left_out: list[str] = []
    kinds = result_kinds()
    kind = next((kind for kind in kinds if all(map(kind.holds, folders))), None)
    if kind is not None:
        results = read_results(kind, folders, left_out)
        table = kind.compare(results, mixed=mixed)
        kind.write_comparison(_writable(out, overwrite), results, table)
    else:
        table = _join_runs(folders, out, mixed, overwrite, left_out, kinds[::-1])
    _tell(left_out)
    print_table(table, f"written to {out}")


def _join_runs(
    folders: list[Path],
    out: Path,
    mixed: bool,
    overwrite: bool,
    left_out: list[str],
    kinds: "Sequence[type[Result]]",
) -> "Table":
    """Write the report on runs by the files that every training leaves, and return its table.

    Raises:
        InputError: a folder holds no run, or the runs cannot be compared.
    """
    from attention_zoo.reports import runs  # drawing takes seconds to import

    for folder in folders:
        if not runs.holds_run(folder):
            others = [f"{other} has {kind.file}" for kind in kinds for other in folders if kind.holds(other)]
            *first, last = (runs.METRICS, *(kind.file for kind in kinds))
            files = f"no {', '.join(first)} or {last}, which training and tests write"
            raise InputError(f"nothing to report on in {folder}: {files}{'; ' if others else ''}{', '.join(others)}")
    found = runs.read_runs(folders, left_out)
    runs.check_comparable(found, mixed=mixed)
    notes = [f"{folder} has {kind.file} too, not shown" for kind in kinds for folder in folders if kind.holds(folder)]
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
