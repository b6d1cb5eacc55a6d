"""Equations as MathML, which browsers draw themselves: LaTeX in pages becomes MathML when the site is built."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

WRITTEN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
"""Pattern of what pymdownx.arithmatex leaves of an equation: within a line, or in a paragraph of its own."""


def on_page_content(content: str, **_: Any) -> str:
    """Return a page with its LaTeX as MathML.

    Raises:
        ValueError: an equation has a command that cannot be converted.
    """
    return WRITTEN.sub(_written, content)


def _written(equation: re.Match[str]) -> str:
    """Return one equation, within a line or in a paragraph of its own."""
    latex = html.unescape(equation[2]).strip()
    return mathml(latex) if equation[1] == "span" else f'<div class="equation">{mathml(latex, "block")}</div>'


def mathml(latex: str, display: str = "inline") -> str:
    """Return LaTeX as MathML.

    Raises:
        ValueError: the LaTeX has a command that cannot be converted.
    """
    made = convert(latex, display=display)
    if "\\" in made:
        raise ValueError(f"{latex} has a command that cannot be converted: {made}")
    return made
