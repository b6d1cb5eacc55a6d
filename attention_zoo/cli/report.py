"""``python -m attention_zoo report``: results of several runs in one table."""

import sys
from pathlib import Path

from attention_zoo.errors import InputError
from attention_zoo.runs.folders import free_folder, named_path
from attention_zoo.sayings import one_line
from attention_zoo.sweeps.plan import PLAN
from attention_zoo.terminal import print_table


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
    folders = [named_path("a path", path) for path in paths]
    folder = None if out is None else named_path("out", out)
    if any((folder / PLAN).exists() for folder in folders):
        if len(folders) > 1:
            raise InputError(f"one sweep at a time: {', '.join(paths)}")
        report_on(folders[0], folder and free_folder(folder, overwrite))
    else:
        _join(folders, folder or Path("report"), mixed, overwrite)


def report_on(sweep: Path, folder: Path | None = None) -> None:
    """Write the report on a sweep, by default into its own folder, and print the table."""
    from attention_zoo.reports.sweeps.files import PAGE, write_sweep
    from attention_zoo.reports.sweeps.report import SweepReport
    from attention_zoo.reports.sweeps.tables import settings_table

    content = SweepReport(sweep)
    _tell(content.left_out)
    if folder is None and (sweep / "report").is_symlink():
        raise InputError(f"{sweep / 'report'} is a link, which is not followed; name a folder with --out")
    folder = folder or sweep / "report"
    write_sweep(folder, content)
    # with the costs it would be wider than a terminal
    title = f"written, with costs and figures, to {folder}; for a browser: {folder / PAGE}"
    print_table(settings_table(content, with_costs=False), title)


def _join(folders: list[Path], out: Path, mixed: bool, overwrite: bool) -> None:
    import tasks  # noqa: F401  so that the results of its evaluations are known
    from attention_zoo.reports.join import join

    left_out: list[str] = []
    table, write = join(folders, left_out, mixed=mixed)
    write(free_folder(out, overwrite))
    _tell(left_out)
    print_table(table, f"written to {out}")


def _tell(left_out: list[str]) -> None:
    for problem in dict.fromkeys(left_out):
        sys.stderr.write(f"warning: left out: {one_line(problem)}\n")
