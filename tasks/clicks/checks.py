"""Checks of the numbers in the settings of clicks, made where the numbers are given."""

import math
from typing import Any

from attention_zoo.errors import InputError

MANY = 10_000
"""The largest number of clicks, rounds or iterations that makes sense; each is carried out, or kept, one by one."""


def check_count(name: str, value: Any, least: int, most: int = MANY) -> None:
    """Refuse a value that is not a whole number from ``least`` to ``most``.

    Raises:
        InputError: the value does not fit; the message gives ``name`` and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{name} must be a whole number from {least} to {most:,}, got {value!r:.40}")


def check_number(name: str, value: Any, above: float | None = None) -> None:
    """Refuse a value that is not a finite number of at least 0 or, where ``above`` is given, of more than that.

    Raises:
        InputError: the value does not fit; the message gives ``name`` and the range.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not (value >= 0 if above is None else value > above):
        wanted = "not be negative" if above is None else f"be above {above:g}" if above else "be positive"
        raise InputError(f"{name} must {wanted} and finite, got {value!r:.40}")
