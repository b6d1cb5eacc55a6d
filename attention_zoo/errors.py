"""The one kind of error that is the user's to mend."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one line that names the thing and, where there are any, the choices.

    The command line prints it without a traceback and ends with exit code 2.
    """


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among the choices, with the nearest one first.

    Args:
        kind: what the name should have been, e.g. ``"mixer"``.
        name: what was given.
        choices: the names that exist.
    """
    choices = sorted(choices)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}; {hint}choose from: {', '.join(choices) or '(none)'}")
