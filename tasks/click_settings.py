"""How probabilistic layers adapt while a model is asked."""

from dataclasses import dataclass, replace
from typing import Literal

from attention_zoo.domains import checked


@checked
@dataclass
class Setting:
    """How probabilistic layers adapt when a model is asked; None leaves what they were built with.

    Args:
        key_adaptation: iterations of Eq. 18; 0 is none.
        key_prior_precision: theta_xi.
        value_propagation: iterations of Eq. 23 in the head; 0 is none.
        value_prior_precision: theta_mu.
        adapt_in: where keys adapt: in the ``backbone``, in the ``head``, or in ``both``.
    """

    key_adaptation: int | None = None
    key_prior_precision: float | None = None
    value_propagation: int | None = None
    value_prior_precision: float | None = None
    adapt_in: Literal["backbone", "head", "both"] = "both"

    @property
    def keys(self) -> dict[str, int | float]:
        """What is given of the keys' options."""
        given = {"key_adaptation": self.key_adaptation, "key_prior_precision": self.key_prior_precision}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def values(self) -> dict[str, int | float]:
        """What is given of the values' options."""
        given = {"value_propagation": self.value_propagation, "value_prior_precision": self.value_prior_precision}
        return {name: value for name, value in given.items() if value is not None}

    def plain(self) -> dict[str, int | float | str]:
        """All that is given, as plain values."""
        return {**self.keys, **self.values, **({"adapt_in": self.adapt_in} if self.keys else {})}

    def filled(self, default: "Setting") -> "Setting":
        """With what it leaves open taken from another."""
        names = ("key_adaptation", "key_prior_precision", "value_propagation", "value_prior_precision")
        missing = {name: getattr(default, name) for name in names if getattr(self, name) is None}
        return replace(self, **missing)
