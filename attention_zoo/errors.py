"""The one kind of error that is the user's to mend."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one line that names the thing and, where there are any, the choices.

    The command line prints it without a traceback and ends with exit code 2.
    """


MANY = 30
"""Up to so many choices are all named; of more, the nearest."""


def unknown(kind: str, name: str, choices: Iterable[str], listing: str = "") -> InputError:
    """The error for a name that is not among the choices, with the nearest first; of many choices only those.

    Args:
        kind: what the name should have been, e.g. ``"mixer"``.
        name: what was given.
        choices: the names that exist.
        listing: where to find them all, said where there are many and none is near; default is a few examples.
    """
    choices = sorted(set(choices))
    by_lower = {choice.lower(): choice for choice in choices}
    few = len(choices) <= MANY
    near = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=1 if few else 3)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
    if few:
        hint = f"{hint} choose from: {', '.join(choices) or '(none)'}".lstrip()
    return InputError(f"unknown {kind} {name!r}; {hint or listing or 'for example: ' + ', '.join(choices[:5])}")
