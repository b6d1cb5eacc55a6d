"""Mixers inside mixers: what a wrapper is told when the mixer that it was to hold cannot be built."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attention_zoo.domains import shown
from attention_zoo.errors import InputError
from attention_zoo.mixers.base import SelfMixer


@contextmanager
def building_inside(outer: SelfMixer, mixer: Any) -> Iterator[None]:
    """Check an option ``mixer``, a name, a factory or None, and name ``outer`` and it in errors inside the context.

    Raises:
        InputError: the option is nothing that builds a mixer, or what is built inside the context does not fit.
    """
    fits = mixer is None or isinstance(mixer, str) or callable(mixer)
    outer.check(fits, f"mixer={shown(mixer)} must be the name of a self-mixer or a factory of one")
    try:
        yield
    except (InputError, TypeError) as error:
        raise outer.refusal(f"mixer={shown(mixer)}: {error}") from error
