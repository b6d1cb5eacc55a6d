"""``python -m attention_zoo mixers``: what is in the zoo."""

from typing import Literal

from rich.table import Table

from attention_zoo.cli.console import console
from attention_zoo.registry import MixerInfo, list_mixers, mixer_info


def mixers(kind: Literal["self", "cross"] | None = None) -> None:
    """List the mixers: name, reading, paper, equation, options with their defaults, and cost in tokens N.

    Args:
        kind: only mixers of tokens among themselves (self) or of queries with pixels (cross).
    """
    table = Table("Name", "Reading", "Paper", "Equation", "Options", "Cost in N")
    for name in list_mixers(kind):
        info = mixer_info(name)
        table.add_row(info.name, info.reading, info.paper, info.equation, _options(info), info.complexity)
    console().print(table)


def _options(info: MixerInfo) -> str:
    return "\n".join(f"{option.name}: {option.type} = {option.default!r}" for option in info.options)
