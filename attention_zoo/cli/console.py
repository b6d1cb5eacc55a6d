"""Where and how tables are printed."""

from typing import TYPE_CHECKING

from rich import table as rich
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from attention_zoo.reports import Table

PLAIN_WIDTH = 160
"""Columns where the output is no terminal, so that a file or a pipe gets whole lines."""


def printable(name: object) -> str:
    """A file's name for a stream that takes text only: bytes that are no UTF-8 become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def console() -> Console:
    """The terminal, or what stands in its place."""
    found = Console()
    return found if found.is_terminal else Console(width=PLAIN_WIDTH)


def print_table(table: "Table", title: str) -> None:
    """Print a table, numbers to the right, and its notes below."""
    shown = rich.Table()
    for place, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    out = console()
    out.print(Text(title, style="bold"), soft_wrap=True)
    out.print(shown)
    for note in table.notes:
        out.print(Text(f"* {note}"), soft_wrap=True)
