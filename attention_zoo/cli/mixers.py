"""``python -m attention_zoo mixers``: lists the mixers of the zoo.

Importing them takes seconds, so the package has a table of them, ``mixers.json``, with a fingerprint of what their
files declare. Once these declare anything else, the mixers are imported.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from attention_zoo.errors import unknown
from attention_zoo.runs.files import read_json, write_text
from attention_zoo.terminal import console, text_table

TABLE = Path(__file__).with_name("mixers.json")
"""The table of mixers, one a line."""

SOURCES = Path(__file__).parents[1] / "mixers"
"""The folder of the mixers' own files."""

HEADER = ("Name", "Reading", "Paper", "Equation", "Options", "Cost in N")
MARKDOWN = ("name", "reading", "equation", "paper", "cost in N tokens")


@dataclass(frozen=True)
class Row:
    """What is listed of a mixer; see `attention_zoo.MixerInfo`."""

    name: str
    kind: str
    reading: str
    paper: str
    equation: str
    options: str
    complexity: str
    about: str


def mixers(
    names: list[str],
    *,
    kind: Literal["self", "cross", "wrapper"] | None = None,
    markdown: bool = False,
    refresh: bool = False,
) -> None:
    """List the mixers: name, reading, paper, equation, options with their defaults, and cost in tokens N.

    Args:
        names: mixers, before the options, to say everything about: what each option is too; without, all are listed.
        kind: only mixers of tokens (self), of queries with pixels (cross), or those around another (wrapper).
        markdown: print the table of the README, by reading and without options.
        refresh: write the table that other calls read anew, after a change of a mixer's file.
    """
    if refresh:
        write_table()
    known = {row.name: row for row in rows_of(kind)}
    for name in names:
        if name not in known:
            raise unknown("mixer", name, known)
    rows = [known[name] for name in names or known]
    if markdown:
        console().print(markdown_table(rows), soft_wrap=True)
    elif names:
        console().print("\n\n".join(map(_description, rows)), soft_wrap=True, markup=False)
    else:
        console().print(text_table(HEADER, map(_cells, rows)))


def rows_of(kind: str | None = None) -> list[Row]:
    """Return the rows of the mixers of a kind; None is all."""
    return [row for row in table_rows() or imported_rows() if kind in (None, row.kind)]


def table_rows() -> list[Row] | None:
    """Return the rows of the table; None if the mixers' files declare something else than when it was written."""
    table = read_json(TABLE) if TABLE.is_file() else {}
    return [Row(**row) for row in table["mixers"]] if table.get("fingerprint") == fingerprint() else None


def imported_rows() -> list[Row]:
    """Return the rows of the mixers, which it imports, and then those around another one."""
    from attention_zoo.cli.commands import require_mixers

    require_mixers()
    from attention_zoo.mixers.registry import list_mixers, mixer_class, mixer_info

    rows = []
    wrappers = list_mixers("wrapper")
    for info in map(mixer_info, list_mixers() + wrappers):
        options = "\n".join(f"{option.name}: {option.type} = {option.default!r}" for option in info.options)
        kind = "wrapper" if info.name in wrappers else info.kind
        about = inspect.getdoc(mixer_class(info.name)) or ""
        rows.append(Row(info.name, kind, info.reading, info.paper, info.equation, options, info.complexity, about))
    return rows


def write_table() -> None:
    """Write the table."""
    lines = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in imported_rows())
    write_text(TABLE, f'{{"fingerprint": "{fingerprint()}",\n"mixers": [\n{lines}\n]}}\n')


def fingerprint() -> str:
    """Return a hash of what the mixers' files declare: all that is in them but the bodies and texts of functions."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        content = path.read_bytes()
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):  # somebody is writing it
            digest.update(content)
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = []
            elif isinstance(node, ast.ClassDef | ast.Module):
                node.body = [part for part in node.body if not _is_text(part)]
        digest.update(f"{path.relative_to(SOURCES)} {ast.dump(tree)}".encode())
    return digest.hexdigest()


def _is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def markdown_table(rows: Sequence[Row] | None = None) -> str:
    """Return mixers, None is all, as a markdown table, sorted by reading."""
    ordered = sorted(rows_of() if rows is None else rows, key=lambda row: (row.reading.casefold(), row.name))
    lines = [MARKDOWN, ("---",) * len(MARKDOWN), *map(_markdown_cells, ordered)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _description(row: Row) -> str:
    """Return all that is known of a mixer as lines, with its docstring, which explains the options."""
    facts = (("reading", row.reading), ("paper", row.paper), ("equation", row.equation), ("cost in N", row.complexity))
    lines = [row.name, *(f"  {name + ':':11}{fact}" for name, fact in facts), "", row.about]
    return "\n".join(lines + (["", "Types and defaults:", row.options] if row.options else []))


def _cells(row: Row) -> tuple[str, ...]:
    return row.name, row.reading, row.paper, row.equation, row.options, row.complexity


def _markdown_cells(row: Row) -> tuple[str, ...]:
    cells = (row.reading, row.equation, row.paper, row.complexity)
    return f"`{row.name}`", *(cell.replace("|", "\\|") for cell in cells)
