"""``python -m attention_zoo report``: results of several runs in one table."""

from pathlib import Path

from attention_zoo.cli.console import print_table
from attention_zoo.errors import InputError


def report(paths: list[str], *, out: str = "report", mixed: bool = False, overwrite: bool = False) -> None:
    """Join the results of several runs into one table (csv, markdown) and figure.

    What is reported on are results of robustness, or of interactive segmentation, as a test leaves them. Numbers that
    were not found under the same protocol are not put into one table, unless asked for.

    Args:
        paths: folders of runs or of evaluations, or their robustness.json or clicks.json; they come before the options.
        out: folder to write to.
        mixed: put different protocols into one table, with notes that say what differs.
        overwrite: whether ``out`` may hold something already.
    """
    from attention_zoo import reports  # drawing takes seconds to import
    from attention_zoo.reports import clicks

    if not paths:
        raise InputError("nothing to report on: python -m attention_zoo report RUN [RUN ...] [options]")
    folders = [Path(path) for path in paths]
    of_clicks = [clicks.holds_result(path) for path in folders]
    if any(of_clicks) and not all(of_clicks):
        other = folders[of_clicks.index(False)]
        raise InputError(f"{other} has no {clicks.RESULT}, as others have: report on one kind of result at a time")
    if all(of_clicks):
        found = clicks.read_results(folders)
        clicks.check_comparable(found, mixed=mixed)
    else:
        results = reports.read_results(folders)
        table = reports.compare(results, mixed=mixed)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{out} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{out} is not empty; choose another folder with --out, or give --overwrite true")
    folder.mkdir(parents=True, exist_ok=True)
    if all(of_clicks):
        table = clicks.write_comparison(folder, found)
    else:
        reports.write_comparison(folder, results, table)
    print_table(table, f"written to {folder}")
