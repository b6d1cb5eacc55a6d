"""A table of words, as tables are printed and written to files."""

import csv
import io
import re
from dataclasses import dataclass

BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Line breaks and other characters that steer a terminal."""

MARKUP = re.compile(r"[\\`|]|[*~](?=\S)|(?<!\w)_(?=\S)|<(?=[A-Za-z/!?])|&(?=#|\w+;)|(?<=\])[(\[:]|!(?=\[)")
"""What markdown would not show as it is."""

ENTITIES = {"<": "&lt;", "&": "&amp;"}


@dataclass(frozen=True)
class Table:
    """Text in cells, the first column naming the rows.

    Attributes:
        header: of the columns.
        rows: as many cells each.
        notes: below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def csv(self) -> str:
        """Comma-separated; the notes are left out, so that a program reads it."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """A markdown table, its notes as a list below."""
        rule = ("---", *["---:"] * (len(self.header) - 1))
        lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in (self.header, rule, *self.rows)]
        notes = [f"* {_escaped(note)}" for note in self.notes]
        return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def on_one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return BREAKS.sub(" ", text)


def _escaped(text: str) -> str:
    """A text on one line that markdown shows as it is: no cell ends early, nothing is a tag, a link or emphasis."""
    return MARKUP.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), on_one_line(text))
