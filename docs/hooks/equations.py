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
        latex2mathml.exceptions.LatexError: an equation is not LaTeX.
    """
    return WRITTEN.sub(_mathml, content)


def _mathml(equation: re.Match[str]) -> str:
    kind, latex = equation[1], html.unescape(equation[2]).strip()
    if kind == "span":
        return convert(latex)
    return f'<div class="equation">{convert(latex, display="block")}</div>'
