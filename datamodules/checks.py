"""Checks of arguments that all data share; each error names the argument and what it may be."""

import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any

from attention_zoo.errors import InputError
from datamodules.decoding import MOST_PIXELS

MOST_SEED = 2**32 - 1
"""As Lightning's ``seed_everything``."""

MOST_BATCH = 1_000_000
"""Images a batch."""

MOST_WORKERS = 1_000
"""Processes that load data."""


def shown(value: Any, most: int = 80) -> str:
    """A value in an error; Python refuses to print integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check a whole number.

    Raises:
        InputError: ``value`` is none, or less than ``least``, or more than ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise InputError(f"{name} must be at least {least}, got {shown(value)}")
    if most is not None and value > most:
        raise InputError(f"{name} must be at most {most:,}, got {shown(value)}")


def require_between(name: str, value: Any, low: int, high: int) -> None:
    """Check a whole number of a small range.

    Raises:
        InputError: ``value`` is none in ``low`` to ``high``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        raise InputError(f"{name} must be {low} to {high}, got {shown(value)}")


def require_number(name: str, value: Any, low: float, high: float, ends: str = "[]") -> None:
    """Check a number; NaN is none.

    Args:
        name: of the argument.
        value: what was given.
        low: least value.
        high: largest value.
        ends: of the interval; a round bracket leaves the bound out.

    Raises:
        InputError: ``value`` is no number in the interval.
    """
    real = _is_number(value)
    above = real and (value > low if ends[0] == "(" else value >= low)
    below = real and (value < high if ends[1] == ")" else value <= high)
    if not (above and below):
        raise InputError(f"{name} must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}, got {shown(value)}")


def require_range(name: str, values: Any, low: float, high: float) -> None:
    """Check a pair of numbers, the least first.

    Raises:
        InputError: they are not two in (low, high], or the first is the larger one.
    """
    if _length(values) != 2:
        raise InputError(f"{name} must be two numbers, got {shown(values)}")
    for value in values:
        require_number(name, value, low, high, "(]")
    if values[0] > values[1]:
        raise InputError(f"{name} must be two numbers, the least first; got {shown(values)}")


def two_sides(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Height and width in pixels, of one number or two.

    Raises:
        InputError: they are no whole numbers of at least ``least``, or together more than `MOST_PIXELS` pixels.
    """
    sides = (value, value) if isinstance(value, (Integral, Real)) else value
    if _length(sides) != 2:
        raise InputError(f"{name} must be one or two whole numbers, got {shown(value)}")
    for side in sides:
        require_whole(name, side, least, MOST_PIXELS)
    if sides[0] * sides[1] > MOST_PIXELS:
        raise InputError(f"{name} must be at most {MOST_PIXELS:,} pixels, got {sides[0]} x {sides[1]}")
    return int(sides[0]), int(sides[1])


def require_fractions(**fractions: Any) -> None:
    """Check shares of one whole of which something is left.

    Raises:
        InputError: one of them is not positive, or they are 1 or more together.
    """
    if not all(_is_number(value) and value > 0 for value in fractions.values()) or sum(fractions.values()) >= 1:
        said = ", ".join(map(shown, fractions.values()))
        together = "together " if len(fractions) > 1 else ""
        raise InputError(f"{' and '.join(fractions)} must be positive and {together}less than 1, got {said}")


def require_different(name: str, values: Any, most: int | None = None, kind: str = "ones") -> None:
    """Check a list of names or numbers.

    Raises:
        InputError: it is empty, has one twice, or more than ``most``.
    """
    if not _length(values) or len(set(values)) < len(values):
        raise InputError(f"{name} must be different {kind}, at least one; got {shown(values)}")
    if most is not None and len(values) > most:
        raise InputError(f"{name} must be at most {most}, got {len(values)}")


def require_channels(name: str, values: Any, positive: bool = False) -> None:
    """Check one finite number for each of three channels.

    Raises:
        InputError: they are none, or must be ``positive`` and are not.
    """
    if _length(values) != 3 or not all(map(_is_number, values)):
        raise InputError(f"{name} must be three numbers, one a channel; got {shown(values)}")
    if positive and min(values) <= 0:
        raise InputError(f"{name} must be positive, got {shown(values)}")


def _is_number(value: Any) -> bool:
    """Whether it is a finite one; an integer of hundreds of digits is not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return abs(value) < 1e300


def _length(values: Any) -> int | None:
    return len(values) if isinstance(values, Collection) and not isinstance(values, (str, bytes)) else None


def require_counts(name: str, values: Any, number: int, most: int) -> None:
    """Check ``number`` counts, each of 1 to ``most``.

    Raises:
        InputError: they are not.
    """
    if _length(values) != number:
        raise InputError(f"{name} must be {number} whole numbers, got {shown(values)}")
    for value in values:
        require_whole(name, value, 1, most)


def require_all_whole(name: str, values: Iterable[Any], least: int, most: int | None = None) -> None:
    """`require_whole` of each value."""
    for value in values:
        require_whole(name, value, least, most)
