"""A table of text, which can be printed or written to files as CSV and markdown."""

import csv
import io
import re
from dataclasses import dataclass

BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Pattern of line breaks and other characters that control a terminal."""

MARKUP = re.compile(r"[\\`|]|[*~](?=\S)|(?<!\w)_(?=\S)|<(?=[A-Za-z/!?])|&(?=#|\w+;)|(?<=\])[(\[:]|!(?=\[)")
"""Pattern of characters that markdown would read as markup instead of showing them."""

ENTITIES = {"<": "&lt;", "&": "&amp;"}


@dataclass(frozen=True)
class Table:
    """A table of text whose first column names the rows.

    Attributes:
        header: the headings of the columns.
        rows: the rows, each with as many cells as the header.
        notes: lines to show below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def turned(self) -> "Table":
        """Return the table with its rows as columns, whose first column has the headings."""
        (header, *rows) = zip(self.header, *self.rows, strict=True)
        return Table(header, tuple(rows), self.notes)

    def csv(self) -> str:
        """Return the table as comma-separated values, without the notes, so that a program can read it."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """Return the table in markdown, with its notes as a list below."""
        rule = ("---", *["---:"] * (len(self.header) - 1))
        lines = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in (self.header, rule, *self.rows)]
        notes = [f"* {escaped(note)}" for note in self.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def on_one_line(text: str) -> str:
    """Return a text in which each run of line breaks and control characters is a single space."""
    return BREAKS.sub(" ", text)


def escaped(text: str) -> str:
    """Return a text on one line, escaped so that markdown shows it as it is and reads no tag, link or end of a cell."""
    return MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), on_one_line(text))
