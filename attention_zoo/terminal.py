"""What is printed, as it is: names of runs, files and classes are no markup, whatever brackets and colons they hold."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def terminal(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints ``[red]x[/b]`` and ``:smile:`` as such.

    Args:
        stderr: whether it prints to stderr.
        width: columns; None is those of the terminal.
    """
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def text_table(
    header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str | None = None, numbers: bool = False
) -> Table:
    """A table of plain words; a cell that is a ``Text`` keeps its style.

    Args:
        header: names of the columns.
        rows: cells, as many in each as there are columns.
        title: above the table.
        numbers: whether all columns but the first stand to the right.
    """
    table = Table(title=None if title is None else Text(title, style="italic"))
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table
