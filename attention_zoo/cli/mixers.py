"""``python -m attention_zoo mixers``: what is in the zoo."""

from typing import Literal

from attention_zoo.cli.console import console
from attention_zoo.registry import MixerInfo, list_mixers, mixer_info
from attention_zoo.terminal import text_table

HEADER = ("Name", "Reading", "Paper", "Equation", "Options", "Cost in N")


def mixers(kind: Literal["self", "cross"] | None = None) -> None:
    """List the mixers: name, reading, paper, equation, options with their defaults, and cost in tokens N.

    Args:
        kind: only mixers of tokens among themselves (self) or of queries with pixels (cross).
    """
    console().print(text_table(HEADER, map(_row, map(mixer_info, list_mixers(kind)))))


def _row(info: MixerInfo) -> tuple[str, ...]:
    return info.name, info.reading, info.paper, info.equation, _options(info), info.complexity


def _options(info: MixerInfo) -> str:
    return "\n".join(f"{option.name}: {option.type} = {option.default!r}" for option in info.options)
