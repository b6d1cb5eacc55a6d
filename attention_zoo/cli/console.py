"""Where and how tables are printed."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from attention_zoo.terminal import terminal, text_table

if TYPE_CHECKING:
    from attention_zoo.reports.table import Table

PLAIN_WIDTH = 160
"""Columns where the output is no terminal, so that a file or a pipe gets whole lines."""


def printable(name: object) -> str:
    """A file's name for a stream that takes text only: bytes that are no UTF-8 become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def console() -> Console:
    """The terminal, or what stands in its place."""
    found = terminal()
    return found if found.is_terminal else terminal(width=PLAIN_WIDTH)


def print_table(table: "Table", title: str) -> None:
    """Print a table, numbers to the right, and its notes below."""
    out = console()
    out.print(Text(title, style="bold"), soft_wrap=True)
    out.print(text_table(table.header, table.rows, numbers=True))
    for note in table.notes:
        out.print(Text(f"* {note}"), soft_wrap=True)
