"""What the hooks of the site share: pages that are generated, and their places in the navigation."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
"""The folder of the project."""


def put(files: Files, config: MkDocsConfig, uri: str, content: str) -> None:
    """Add a generated page to the files of the site, in the place of one that has the same path."""
    _put(files, File.generated(config, uri, content=content))


def put_file(files: Files, config: MkDocsConfig, uri: str, source: Path) -> None:
    """Add a file that lies elsewhere in the project to the files of the site."""
    _put(files, File.generated(config, uri, abs_src_path=str(source)))


def _put(files: Files, file: File) -> None:
    before = files.get_file_from_path(file.src_uri)
    if before is not None:
        files.remove(before)
    files.append(file)


def section(config: MkDocsConfig, title: str) -> list[Any]:
    """Return the entries of a section of the navigation, to which entries can be appended.

    Raises:
        KeyError: mkdocs.yml has no such section.
    """
    for entry in config.nav or []:
        if title in entry and isinstance(entry[title], list):
            return entry[title]
    raise KeyError(f"the navigation of mkdocs.yml has no section {title}")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in markdown; cells may hold markup, but no line breaks."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Return a cell whose bars are no borders; those in code are none anyway, and would keep a backslash."""
    return re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or r"\|", text)
