"""``python -m attention_zoo mixers``: lists the mixers of the zoo."""

from typing import Literal

from attention_zoo.mixers.registry import MixerInfo, list_mixers, mixer_info
from attention_zoo.terminal import console, text_table

HEADER = ("Name", "Reading", "Paper", "Equation", "Options", "Cost in N")
MARKDOWN = ("name", "reading", "equation", "paper", "cost in N tokens")


def mixers(kind: Literal["self", "cross"] | None = None, markdown: bool = False) -> None:
    """List the mixers: name, reading, paper, equation, options with their defaults, and cost in tokens N.

    Args:
        kind: only mixers of tokens among themselves (self) or of queries with pixels (cross).
        markdown: print the table of the README, by reading and without options.
    """
    if markdown:
        console().print(markdown_table(kind), soft_wrap=True)
    else:
        console().print(text_table(HEADER, map(_row, map(mixer_info, list_mixers(kind)))))


def markdown_table(kind: Literal["self", "cross"] | None = None) -> str:
    """Return the mixers as a markdown table, sorted by reading."""
    infos = sorted(map(mixer_info, list_mixers(kind)), key=lambda info: (info.reading.casefold(), info.name))
    rows = [MARKDOWN, ("---",) * len(MARKDOWN), *map(_markdown_row, infos)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(info: MixerInfo) -> tuple[str, ...]:
    return info.name, info.reading, info.paper, info.equation, _options(info), info.complexity


def _markdown_row(info: MixerInfo) -> tuple[str, ...]:
    cells = (info.reading, info.equation, info.paper, info.complexity)
    return f"`{info.name}`", *(cell.replace("|", "\\|") for cell in cells)


def _options(info: MixerInfo) -> str:
    return "\n".join(f"{option.name}: {option.type} = {option.default!r}" for option in info.options)
