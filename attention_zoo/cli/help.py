"""Help that fits a screen: what a command is for, an example, and a line for each option that people use."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from docstring_parser import DocstringStyle, parse

from attention_zoo.cli.overview import OPTIONS, PROGRAM, TOOLS, TRAINING, UNSAID, Option

WIDTH = 118
"""Columns of a line."""

ALL = "all"
"""The word after ``--help`` that asks for every option."""

WORDS = ("-h", "--help")


def without_all(argv: Sequence[str]) -> list[str]:
    """Return the words of a command, without the `ALL` that may follow ``--help``."""
    return [word for before, word in zip(["", *argv], argv, strict=False) if not (before in WORDS and word == ALL)]


def short_help(argv: Sequence[str]) -> str | None:
    """Return the short help of the command ``argv[0]``, if that is what the words ask for, else None."""
    asked = [after for word, after in zip(argv, [*argv[1:], ""], strict=True) if word in WORDS]
    return None if not asked or ALL in asked else help_of(argv[0])


def help_of(command: str) -> str:
    """Return the short help of a command."""
    if command in TRAINING:
        about, places, options = TRAINING[command], "", OPTIONS[command]
        more = f"--help {ALL} lists every option; --model.help CLASS and --data.help CLASS those of a task or of data."
    else:
        from attention_zoo.cli.commands import tool

        about, more = TOOLS[command], f"--help {ALL} says all that there is to say."
        places, options = of_tool(tool(command))
    width = max(len(option.name) for option in options) + 6
    lines = "\n".join(_line(option, width) for option in options)
    return (
        f"usage: {PROGRAM} {command} {places}[options]\n\n{about.line}\n\noptions:\n{lines}\n\n"
        f"example: {PROGRAM} {command} {about.example}\n{more}\n"
    )


def of_tool(function: Callable[..., Any]) -> tuple[str, tuple[Option, ...]]:
    """Return the words of a tool's usage before its options, which are given by place, and the options."""
    doc = parse(inspect.cleandoc(function.__doc__ or ""), style=DocstringStyle.GOOGLE)
    said = {each.arg_name: " ".join((each.description or "").split()) for each in doc.params}
    places, options = "", []
    for each in inspect.signature(function).parameters.values():
        by_place = each.kind is not each.KEYWORD_ONLY and each.default is each.empty
        name = each.name.upper() if by_place else each.name
        places += f"{name} " if by_place else ""
        plain = each.default in (each.empty, None, False, True)
        options.append(Option(name, said.get(each.name, ""), UNSAID if plain else each.default))
    return places, tuple(options)


def _line(option: Option, width: int) -> str:
    default = "" if option.default is UNSAID or "(default" in option.text else f" (default {option.default})"
    start = f"  {option.name if option.name.isupper() else '--' + option.name}".ljust(width)
    return start + _shortened(option.text, WIDTH - len(start) - len(default)) + default


def _shortened(text: str, width: int) -> str:
    """Return the beginning of a text that fits, up to the end of a part of it where there is one."""
    text = text.replace("``", "")
    if len(text) <= width:
        return text if text.endswith("...") else text.removesuffix(".")
    start = text[: width - 1]
    ends = [start.rfind(mark) for mark in (". ", "; ", ": ", " (")]
    short = start[: max(0, *ends)]
    whole = len(short) > width // 3 and short.count("(") == short.count(")")
    return short if whole else start.rpartition(" ")[0].rstrip(",;:") + " …"
