"""Consoles and tables that print text as it is: brackets and colons in names are not read as rich's markup."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from attention_zoo.reports.table import Table as Report

Item = TypeVar("Item")

PLAIN_WIDTH = 160
"""Width in columns of output that does not go to a terminal, so that a file or a pipe gets whole lines."""


WIDEST = 10_000
"""Width in columns that no table has, to ask for its width without line breaks."""


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


def printable(name: object) -> str:
    """Return a file's name as text that can be printed: bytes that are no UTF-8 become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def tracked(
    items: Iterable[Item], words: str, *, total: float | None = None, weight: Callable[[Item], float] = lambda item: 1
) -> Iterator[Item]:
    """Yield the items, with a bar on stderr, if that is a terminal: how far it is, and how long the rest takes.

    Args:
        items: the items.
        words: what is being done.
        total: the sum of the weights of all items; by default that of ``items``, which then are a collection.
        weight: how long an item takes beside the others.
    """
    from rich.markup import escape
    from rich.progress import Progress

    screen = terminal(stderr=True)  # a file or a pipe would get a line of nothing
    if total is None:
        items = list(items)
        total = sum(map(weight, items))
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(escape(words), total=total)
        for item in items:
            yield item
            progress.advance(task, weight(item))


def waiting(words: str) -> AbstractContextManager[Any]:
    """Return a context in which stderr, if that is a terminal, says what is waited for."""
    screen = terminal(stderr=True)
    return screen.status(Text(words)) if screen.is_terminal else nullcontext()


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number and what it counts: ``1 image``, ``1,200 images``, or with a plural of its own ``2 classes``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def console() -> Console:
    """Return a console that prints to stdout, `PLAIN_WIDTH` columns wide if that is no terminal."""
    out = terminal()
    return out if out.is_terminal else terminal(width=PLAIN_WIDTH)


def print_table(table: "Report", title: str) -> None:
    """Print ``title``, the table with its numbers aligned to the right, and its notes below.

    A table that is wider than the screen is turned, its rows to columns, where that makes it narrower.
    """
    out = console()
    out.print(Text(title, style="bold"), soft_wrap=True)
    shown, turned = (text_table(each.header, each.rows, numbers=True) for each in (table, table.turned()))
    unbroken = out.options.update(max_width=WIDEST)
    width, other = (Measurement.get(out, unbroken, each).maximum for each in (shown, turned))
    out.print(turned if out.width < width and other < width else shown)
    for note in table.notes:
        out.print(Text(f"* {note}"), soft_wrap=True)
