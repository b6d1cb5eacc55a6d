"""The settings that say how probabilistic layers adapt while a model is asked."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from attention_zoo.domains import checked
from attention_zoo.errors import unknown
from tasks.clicks.checks import check_count, check_number

AdaptIn = Literal["backbone", "head", "both"]


@checked
@dataclass
class Setting:
    """Adaptation of probabilistic layers when a model is asked; None leaves what they were built with.

    Args:
        key_adaptation: iterations of Eq. 18; 0 is none.
        key_prior_precision: theta_xi.
        value_propagation: iterations of Eq. 23 in the head; 0 is none.
        value_prior_precision: theta_mu.
        adapt_in: where keys adapt: in the ``backbone``, in the ``head``, or in ``both``.

    Raises:
        InputError: a number is out of range, or there is no such place.
    """

    key_adaptation: int | None = None
    key_prior_precision: float | None = None
    value_propagation: int | None = None
    value_prior_precision: float | None = None
    adapt_in: AdaptIn = "both"

    def __post_init__(self) -> None:
        for name in ("key_adaptation", "value_propagation"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 0)
        for name in ("key_prior_precision", "value_prior_precision"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.adapt_in not in get_args(AdaptIn):
            raise unknown("adapt_in", self.adapt_in, get_args(AdaptIn))

    @property
    def keys(self) -> dict[str, Any]:
        """The options of key adaptation that are given, by name."""
        given = {"key_adaptation": self.key_adaptation, "key_prior_precision": self.key_prior_precision}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def values(self) -> dict[str, Any]:
        """The options of value propagation that are given, by name."""
        given = {"value_propagation": self.value_propagation, "value_prior_precision": self.value_prior_precision}
        return {name: value for name, value in given.items() if value is not None}

    def plain(self) -> dict[str, int | float | str]:
        """Return all options that are given, by name, as plain values."""
        return {**self.keys, **self.values, **({"adapt_in": self.adapt_in} if self.keys else {})}

    def filled(self, default: "Setting") -> "Setting":
        """Return a copy in which numbers that are None are taken from ``default``; ``adapt_in`` stays."""
        names = ("key_adaptation", "key_prior_precision", "value_propagation", "value_prior_precision")
        missing = {name: getattr(default, name) for name in names if getattr(self, name) is None}
        return replace(self, **missing)
