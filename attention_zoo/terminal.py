"""Consoles and tables that print text as it is: brackets and colons in names are not read as rich's markup."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def terminal(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console that prints ``[red]x[/b]`` and ``:smile:`` literally.

    Args:
        stderr: whether it prints to stderr.
        width: width in columns; None takes that of the terminal.
    """
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def text_table(
    header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None, numbers: bool = False
) -> Table:
    """Return a table of plain words; a cell that is a ``Text`` keeps its style.

    Args:
        header: names of the columns.
        rows: the cells of each row, one for each column.
        title: the title above the table; None leaves it out.
        numbers: whether all columns but the first are aligned to the right.
    """
    table = Table(title=None if title is None else Text(title, style="italic"))
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table
