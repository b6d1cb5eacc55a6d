"""The settings that say how probabilistic layers adapt while a model is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from attention_zoo.domains import checked
from attention_zoo.errors import unknown
from attention_zoo.functional.gauge import Gauge
from tasks.clicks.domains import Number

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
        gauge: see `attention_zoo.mixers.switches.Adapt`, also for the next two.
        centre: whether keys adapt about the means.
        fit_positions: whether keys adapt together with the queries' positions, in layers that have some.

    Raises:
        InputError: a number is out of range, or there is no such place.
    """

    key_adaptation: Number | None = None
    key_prior_precision: float | None = None
    value_propagation: Number | None = None
    value_prior_precision: float | None = None
    adapt_in: AdaptIn = "both"
    gauge: Gauge | None = None
    centre: bool | None = None
    fit_positions: bool | None = None

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """Return a setting made from plain values by name, as `plain` returns them.

        Raises:
            InputError: an option does not exist or does not fit.
        """
        names = [each.name for each in fields(cls)]
        for name in content:
            if name not in names:
                raise unknown("option of setting", str(name), names)
        return cls(**content)

    @property
    def keys(self) -> dict[str, Any]:
        """The options of key adaptation that are given, by name."""
        names = ("key_adaptation", "key_prior_precision", "gauge", "centre", "fit_positions")
        options = {name: getattr(self, name) for name in names}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def values(self) -> dict[str, Any]:
        """The options of value propagation that are given, by name."""
        options = {"value_propagation": self.value_propagation, "value_prior_precision": self.value_prior_precision}
        return {name: value for name, value in options.items() if value is not None}

    def plain(self) -> dict[str, int | float | str]:
        """Return all options that are given, by name, as plain values."""
        return {**self.keys, **self.values, **({"adapt_in": self.adapt_in} if self.keys else {})}

    def filled(self, default: "Setting") -> "Setting":
        """Return a copy in which numbers that are None are taken from ``default``; ``adapt_in`` stays."""
        names = ("key_adaptation", "key_prior_precision", "value_propagation", "value_prior_precision")
        missing = {name: getattr(default, name) for name in names if getattr(self, name) is None}
        return replace(self, **missing)
