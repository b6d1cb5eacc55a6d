"""Writes the page of claims with its numbers and figure, and checks that they still follow from the runs."""

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from attention_zoo.claims.page import numbers, page
from attention_zoo.claims.schema import Claims
from attention_zoo.claims.verdicts import Outcome
from attention_zoo.errors import InputError
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import numbers_table, runs_table
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import save, whole
from attention_zoo.runs.files import read_text
from attention_zoo.runs.results import exists
from attention_zoo.sweeps.plan import PLAN

PAGE, NUMBERS, FIGURE = "README.md", "claims.csv", "claims.png"
"""The files that are written into the folder of the claims."""

MADE_BY = "Made by `python -m attention_zoo claims`"
"""The words by which a page of claims is known; a page without them is somebody's own, and is not overwritten."""

DIGEST = "Numbers"
"""The key of the figure's metadata that holds a digest of the numbers that it shows."""

Cells = tuple[str, ...]
"""The cells of a row of a table."""

CLOSE = 1e-6
"""The largest relative difference of two numbers that count as the same; libraries of statistics differ in rounding."""


def write_claims(claims: Claims, outcomes: Sequence[Outcome]) -> None:
    """Write ``README.md``, ``claims.csv`` and ``claims.png`` into the folder of the claims, all or none.

    Raises:
        InputError: a file cannot be written, or there is a page that was not made from claims.
    """
    from attention_zoo.claims.figure import claims_figure  # drawing takes seconds to import

    readme = claims.folder / PAGE
    if exists(readme) and (readme.is_symlink() or MADE_BY not in read_text(readme)):
        raise InputError(f"{readme} was not made from claims, and is not overwritten; move it away")
    table = numbers(outcomes)
    with whole(claims.folder) as stage:
        (stage / PAGE).write_text(page(claims, outcomes, FIGURE), encoding="utf-8")
        (stage / NUMBERS).write_text(table.csv(), encoding="utf-8")
        save(claims_figure(outcomes), stage / FIGURE, {DIGEST: _digest(table)})


def problems(claims: Claims, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a line for each claim whose written numbers no longer follow from the runs, else for the page and figure.

    The tables that a sweep's report left beside its runs are checked too: readers take numbers from them.

    Raises:
        InputError: a file cannot be read.
    """
    wrong = list(_wrong_numbers(claims.folder / NUMBERS, numbers(outcomes)))
    yield from wrong
    written = read_text(claims.folder / PAGE).splitlines()
    expected = page(claims, outcomes, FIGURE).splitlines()
    lines = enumerate(zip_longest(written, expected), 1)
    differing = next((number for number, (one, other) in lines if one != other), None)
    if differing and not wrong:
        yield f"{claims.folder / PAGE}: line {differing} is not what the claims and their runs say"
    table = Table(*_read(claims.folder / NUMBERS))
    if _figure_digest(claims.folder / FIGURE) != _digest(table):
        yield f"{claims.folder / FIGURE} does not show the numbers of {NUMBERS}"
    for folder in dict.fromkeys(map(claims.study_folder, claims.studies)):
        if (folder / PLAN).is_file() and (folder / "runs").is_dir():
            yield from _wrong_tables(folder)


def _wrong_tables(folder: Path) -> Iterator[str]:
    """Yield a line for each table of a sweep's report in the folder of its runs that does not follow from them."""
    report = SweepReport(folder)
    for name, made in (("runs.csv", runs_table), ("table.csv", numbers_table)):
        if not (folder / name).is_file():
            continue
        header, lines = _read(folder / name)
        expected = made(report)
        if header != expected.header or len(lines) != len(expected.rows):
            yield f"{folder / name} has other columns or rows than its runs"
            continue
        for number, (line, row) in enumerate(zip(lines, expected.rows, strict=True), 1):
            wrong = _first_difference(header, line, row)
            if wrong:
                column, one, other = wrong
                yield f"{folder / name}: row {number}: {column} is {one}, {other} by its runs"


def _wrong_numbers(path: Path, table: Table) -> Iterator[str]:
    header, lines = _read(path)
    if header != table.header:
        yield f"{path} has the columns {', '.join(header)}, not {', '.join(table.header)}"
        return
    written, expected = ({row[0]: row for row in rows} for rows in (lines, table.rows))
    for name in [*expected, *(name for name in written if name not in expected)]:
        if name not in expected:
            yield f"claim {name} stands in {path}, and is no claim any more"
        elif name not in written:
            yield f"claim {name} does not stand in {path}"
        else:
            wrong = _first_difference(header, written[name], expected[name])
            if wrong:
                column, one, other = wrong
                yield f"claim {name}: {column} is {one} in {path}, {other} by its runs"


def _first_difference(header: Cells, written: Cells, expected: Cells) -> tuple[str, str, str] | None:
    """Return the first column of which two rows hold other values, and both values; None where there is none."""
    cells = zip(header, written, expected, strict=True)
    return next(((name, one or "empty", other or "empty") for name, one, other in cells if not _same(one, other)), None)


def _read(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and rows of a table of numbers, all rows as long as the header."""
    try:
        header, *rows = [tuple(row) for row in csv.reader(read_text(path).splitlines(), strict=True)]
    except (csv.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no table of numbers") from error
    if any(len(row) != len(header) for row in rows):
        raise InputError(f"{path} is no table of numbers: its rows are not of one length")
    return header, tuple(rows)


def _same(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=CLOSE, abs_tol=1e-9)
    except ValueError:
        return one == other


def _digest(table: Table) -> str:
    return hashlib.sha256(table.csv().encode()).hexdigest()


def _figure_digest(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.info.get(DIGEST)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no image") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
