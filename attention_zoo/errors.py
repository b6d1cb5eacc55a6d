"""Defines `InputError`, the one kind of error that the user can fix."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An error about bad input: one line that names what is wrong and, where there are any, the choices.

    The command line prints it without a traceback and ends with exit code 2.
    """


MANY = 50
"""Messages list all choices up to this number; of more they name only the nearest."""


def unknown(kind: str, name: str, choices: Iterable[str], listing: str = "") -> InputError:
    """Return the error for a name that is not among ``choices``; it names the nearest, and all if they are few.

    Args:
        kind: the kind of thing that the name should have been of, e.g. ``"mixer"``.
        name: the name that was given.
        choices: the names that exist.
        listing: words on where all names are listed, used where there are many and none is near; by default a few
            examples are given.
    """
    choices = sorted(set(choices))
    by_lower = {choice.lower(): choice for choice in choices}
    few = len(choices) <= MANY
    near = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=1 if few else 3)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    if few:
        hint = f"{hint} choose from: {', '.join(choices) or '(none)'}".lstrip()
    return InputError(f"unknown {kind} {name!r}; {hint or listing or 'for example: ' + ', '.join(choices[:5])}")
