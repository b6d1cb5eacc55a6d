"""What a number, a switch or a choice that a person gives has to be: the checks that every option of a mixer passes.

Each function returns whether the value fits, and if not a line that names option, value and what would fit, so that
`attention_zoo.interface.SelfMixer.check` takes what it returns. The limits from above are far beyond any sensible use:
they refuse in one line what would otherwise overflow, or exhaust memory or time.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from attention_zoo.errors import InputError

Verdict = tuple[bool, str]
FITS: Verdict = (True, "")

MOST_STEPS = 1000
"""Of an iteration."""
MOST_SIDE = 255
"""Of a kernel or a window, in tokens."""
MOST_REAL = 1e6
"""Of precisions, weights and rates."""


def require(fits: bool, message: str) -> None:
    """Raise an InputError with ``message`` unless ``fits``."""
    if not fits:
        raise InputError(message)


def shown(value: Any) -> str:
    """The value as Python writes it, in one line, cut where that is long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to write integers of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(name: str, value: Any, least: int = 0, most: int = 1 << 31) -> Verdict:
    """An integer, and no truth value, from ``least`` to ``most``."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False, f"{name}={shown(value)} must be an integer"
    if least <= value <= most:
        return FITS
    return False, f"{name}={shown(value)} must {_limit(value, least, most, least == 1)}"


def real(name: str, value: Any, least: float = 0.0, *, strict: bool = False, most: float = MOST_REAL) -> Verdict:
    """A finite number, and no truth value, from ``least`` (above it where ``strict``) to ``most``."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False, f"{name}={shown(value)} must be a number"
    if least <= value <= most and not (strict and value == least):  # NaN is neither
        return FITS
    return False, f"{name}={shown(value)} must {_limit(value, least, most, strict)}"


def truth(name: str, value: Any) -> Verdict:
    """True or False."""
    return isinstance(value, bool), f"{name}={shown(value)} must be True or False"


def one_of(name: str, value: Any, choices: Sequence[str | None]) -> Verdict:
    """One of a few words, or None where that is among them."""
    fits = (value is None or isinstance(value, str)) and value in choices
    *others, last = (str(choice) if choice is None else repr(choice) for choice in choices)
    return fits, f"{name}={shown(value)} must be {', '.join(others)} or {last}"


def sides(name: str, value: Any, most: int = 1 << 15) -> Verdict:
    """Height and width: a pair of integers from 1 to ``most``."""
    fits = isinstance(value, (tuple, list)) and len(value) == 2 and all(whole(name, side, 1, most)[0] for side in value)
    return fits, f"{name}={shown(value)} must be (height, width), integers from 1 to {most}"


def _limit(value: float, least: float, most: float, strict: bool) -> str:
    """The limit that the value is beyond."""
    if value > most:
        return f"be at most {most:g}"
    if strict:
        return "be above 0"
    return "not be negative" if least == 0 else f"be at least {least:g}"
