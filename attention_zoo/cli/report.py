"""``python -m attention_zoo report``: results of several runs in one table."""

from pathlib import Path

from attention_zoo.cli.console import print_table
from attention_zoo.errors import InputError
from attention_zoo.sweeps.plan import PLAN


def report(paths: list[str], *, out: str | None = None, mixed: bool = False, overwrite: bool = False) -> None:
    """Report on a sweep, or join the results of several runs into one table (csv, markdown) and figure.

    Of a sweep, from its folder: means over seeds, what is more than noise, cost beside quality, curves; at any time.
    Of runs, their results of robustness, or of interactive segmentation, as a test leaves them. Numbers that were not
    found under the same protocol are not put into one table, unless asked for.

    Args:
        paths: folder of a sweep; or folders of runs or of evaluations, or their robustness.json or clicks.json; they
            come before the options.
        out: folder to write to (default: report, of a sweep in its folder, where it is brought up to date).
        mixed: put different protocols into one table, with notes that say what differs.
        overwrite: whether ``out`` may hold something already.
    """
    if not paths:
        raise InputError("nothing to report on: python -m attention_zoo report RUN [RUN ...] [options]")
    folders = [Path(path) for path in paths]
    if any((folder / PLAN).is_file() for folder in folders):
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
    folder = folder or sweep / "report"
    write_sweep(folder, found)
    # with the costs it would be wider than a terminal
    print_table(settings_table(found, with_costs=False), f"written, with costs and figures, to {folder}")


def _join(folders: list[Path], out: Path, mixed: bool, overwrite: bool) -> None:
    from attention_zoo import reports  # drawing takes seconds to import
    from attention_zoo.reports import clicks

    of_clicks = [clicks.holds_result(path) for path in folders]
    if any(of_clicks) and not all(of_clicks):
        other = folders[of_clicks.index(False)]
        raise InputError(f"{other} has no {clicks.RESULT}, as others have: report on one kind of result at a time")
    if all(of_clicks):
        found = clicks.read_results(folders)
        clicks.check_comparable(found, mixed=mixed)
        table = clicks.write_comparison(_writable(out, overwrite), found)
    else:
        results = reports.read_results(folders)
        table = reports.compare(results, mixed=mixed)
        reports.write_comparison(_writable(out, overwrite), results, table)
    print_table(table, f"written to {out}")


def _writable(folder: Path, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty; choose another folder with --out, or give --overwrite true")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
