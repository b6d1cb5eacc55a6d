"""Prints tables to the terminal, or to the file or pipe in its place."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from attention_zoo.terminal import terminal, text_table

if TYPE_CHECKING:
    from attention_zoo.reports.table import Table

PLAIN_WIDTH = 160
"""Width in columns of output that does not go to a terminal, so that a file or a pipe gets whole lines."""


def printable(name: object) -> str:
    """Return a file's name as text that can be printed: bytes that are no UTF-8 become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def console() -> Console:
    """Return a console that prints to stdout, `PLAIN_WIDTH` columns wide if that is no terminal."""
    found = terminal()
    return found if found.is_terminal else terminal(width=PLAIN_WIDTH)


def print_table(table: "Table", title: str) -> None:
    """Print ``title``, the table with its numbers aligned to the right, and its notes below."""
    out = console()
    out.print(Text(title, style="bold"), soft_wrap=True)
    out.print(text_table(table.header, table.rows, numbers=True))
    for note in table.notes:
        out.print(Text(f"* {note}"), soft_wrap=True)
