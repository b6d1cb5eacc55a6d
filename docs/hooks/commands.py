"""A page for each command, with the help of its own parser."""

import contextlib
import io
import os
from collections.abc import Iterator
from unittest.mock import patch

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import put, section

from attention_zoo.cli.main import TOOLS, TRAINING, main, overview

WIDTH = "100"
"""Columns of the help."""


def commands() -> list[str]:
    """Return the names of all commands."""
    return [*TRAINING, *TOOLS]


def help_of(*argv: str) -> str:
    """Return what the command line says to these arguments.

    Raises:
        RuntimeError: it ends with an error.
    """
    out = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": WIDTH}), contextlib.redirect_stdout(out):
        try:
            main(list(argv))
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{' '.join(argv)} ended with {end.code}") from end
    return out.getvalue().replace(" \b", "")  # jsonargparse joins an option to its optional value by a backspace


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each page."""
    links = "\n".join(f"- [`{name}`]({name}.md)" for name in commands())
    yield (
        "reference/commands/index.md",
        f"# Commands\n\n```text\n{overview()}```\n\n{links}\n\n"
        "Bad input ends in one line that names the thing and the choices, with exit code 2. "
        "Ctrl-C ends with 130, SIGTERM with 143.\n",
    )
    for name in commands():
        short = help_of(name, "--help")
        text = f"# {name}\n\n```text\n{short}```\n"
        everything = help_of(name, "--help", "all")
        if everything != short:
            text += f"\n## All options\n\n```text\n{everything}```\n"
        yield f"reference/commands/{name}.md", text


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation."""
    places = ["reference/commands/index.md", *(f"reference/commands/{name}.md" for name in commands())]
    section(config, "Reference").append({"Commands": places})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the pages among the files of the site."""
    for uri, text in pages():
        put(files, config, uri, text)
