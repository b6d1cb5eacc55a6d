"""A table that is written row by row, so that what ends a command early loses none of them."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from attention_zoo.errors import InputError

CSV: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
"""How tables are opened: names of files keep their bytes, UTF-8 or not."""


class GrowingTable:
    """A CSV file of rows that have places, written as they come to a file beside it whose name says ``unfinished``.

    Rows are on the disk as soon as they are added, and only their places in memory. No file of before is replaced.

    Args:
        path: the file of the whole table.
        rank: number of this process, each of which has an unfinished file of its own.

    Raises:
        InputError: there is an unfinished file already.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path
        self.unfinished = path.with_name(f"{path.stem}.unfinished{f'-{rank}' if rank else ''}{path.suffix}")
        if self.unfinished.exists():
            raise InputError(
                f"{self.unfinished} exists, of a prediction that was cut off; move it away, or choose another path "
                "with --prediction.path"
            )
        self.places: list[int] = []
        self._file: TextIO | None = None

    def add(self, place: int, row: Sequence[Any], header: Sequence[str]) -> None:
        """Write a row, and before the first one the header.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.unfinished.open("x", 1, **CSV)  # of lines, each on the disk at its end
                csv.writer(self._file).writerow(header)
            csv.writer(self._file).writerow(row)
        except OSError as error:
            raise InputError(f"cannot write {self.unfinished}: {error.strerror or error}") from error
        self.places.append(place)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield place and cells of each row that this process wrote, in the order in which they came."""
        if not self.places:
            return
        with self.unfinished.open(**CSV) as file:
            content = csv.reader(file)
            next(content)
            yield from zip(self.places, content, strict=True)

    def close(self) -> None:
        """End the writing; what was written stays in the unfinished file."""
        if self._file is not None:
            self._file.close()

    def move(self) -> bool:
        """Make the unfinished file the whole table, if there is one and its rows are in order; whether it was so.

        Raises:
            InputError: it cannot be moved.
        """
        self.close()
        if not self.places or self.places != sorted(self.places):
            return False
        try:
            self.unfinished.replace(self.path)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error
        return True

    def remove(self) -> None:
        """Remove the unfinished file, since its rows are in the whole table."""
        self.unfinished.unlink(missing_ok=True)
