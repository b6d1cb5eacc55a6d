"""Checks of data that an annotation cannot hold: what several arguments are together, and numbers in files.

What one argument of a data module may be is said by its annotation; see `attention_zoo.domains`.
"""

from collections.abc import Collection
from numbers import Integral
from typing import Any

from attention_zoo.domains import Domain, complaint, shown
from attention_zoo.errors import InputError
from datamodules.decoding import MOST_PIXELS

MOST_SEED = 2**32 - 1
"""Largest seed, as Lightning's ``seed_everything`` has it."""

MOST_BATCH = 1_000_000
"""Most images in a batch."""

MOST_WORKERS = 1_000
"""Most processes that load data."""

_SHARE = Domain(above=0, below=1)


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check a whole number.

    Args:
        name: what the error calls the number.
        value: what should be the number.
        least: smallest number that is taken.
        most: largest number that is taken; None takes any.

    Raises:
        InputError: ``value`` is no whole number, or less than ``least``, or more than ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {shown(value)}")
    if int(value) < least:
        raise InputError(f"{name} must be at least {least}, got {shown(value)}")
    if most is not None and int(value) > most:
        raise InputError(f"{name} must be at most {most:,}, got {shown(value)}")


def two_sides(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Read the sides of an image from one number, which is both, or from two.

    Args:
        name: what the error calls the sides.
        value: one whole number, or height and width.
        least: shortest side that is taken, in pixels.

    Returns:
        Height and width in pixels.

    Raises:
        InputError: they are no whole numbers of at least ``least``, or the image has more than `MOST_PIXELS` pixels.
    """
    sides = value if _is_list(value) else (value, value)
    if len(sides) != 2:
        raise InputError(f"{name} must be one or two whole numbers, got {shown(value)}")
    for side in sides:
        require_whole(name, side, least, MOST_PIXELS)
    height, width = map(int, sides)
    if height * width > MOST_PIXELS:
        raise InputError(f"{name} must be at most {MOST_PIXELS:,} pixels, got {height} x {width}")
    return height, width


def require_fractions(**fractions: Any) -> None:
    """Check shares of one whole of which something is left.

    Args:
        fractions: the shares, under the names that the error calls them.

    Raises:
        InputError: one of them is not positive, or they are 1 or more together.
    """
    fit = all(complaint(value, float, _SHARE) is None for value in fractions.values())
    if not fit or sum(fractions.values()) >= 1:
        values = ", ".join(map(shown, fractions.values()))
        together = "together " if len(fractions) > 1 else ""
        raise InputError(f"{' and '.join(fractions)} must be positive and {together}less than 1, got {values}")


def require_different(name: str, values: Any, most: int | None = None, kind: str = "ones") -> None:
    """Check a list of names or numbers.

    Args:
        name: what the error calls the list.
        values: the list.
        most: largest number of values that is taken; None takes any.
        kind: what the error calls the values.

    Raises:
        InputError: the list is empty, has a value twice, or more than ``most`` values.
    """
    if not _is_list(values) or not values or len(set(values)) < len(values):
        raise InputError(f"{name} must be different {kind}, at least one; got {shown(values)}")
    if most is not None and len(values) > most:
        raise InputError(f"{name} must be at most {most}, got {len(values)}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes))
