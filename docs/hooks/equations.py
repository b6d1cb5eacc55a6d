"""Equations as MathML, which browsers draw themselves: LaTeX in pages becomes MathML when the site is built."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

WRITTEN = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
"""Pattern of what pymdownx.arithmatex leaves of an equation: within a line, or in a paragraph of its own."""


SPACE = r"\qquad"
"""The space between equations of one paragraph."""


def on_page_content(content: str, **_: Any) -> str:
    """Return a page with its LaTeX as MathML.

    Raises:
        ValueError: an equation has a command that cannot be converted.
    """
    return WRITTEN.sub(_written, content)


def _written(equation: re.Match[str]) -> str:
    """Return one equation, within a line or in a paragraph of its own.

    In a paragraph, what `SPACE` sets apart is drawn for itself, so that a narrow page has it line by line.
    """
    latex = html.unescape(equation[2]).strip()
    if equation[1] == "span":
        return mathml(latex)
    return f'<div class="equation">{"".join(mathml(part, "block") for part in latex.split(SPACE))}</div>'


def mathml(latex: str, display: str = "inline") -> str:
    """Return LaTeX as MathML.

    Raises:
        ValueError: the LaTeX has a command that cannot be converted.
    """
    made = convert(latex, display=display)
    if "\\" in made:
        raise ValueError(f"{latex} has a command that cannot be converted: {made}")
    return made
