"""Functions that switch the on-line adaptation of probabilistic layers in models that are already built."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Unpack, cast

from torch import nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.probabilistic import Adaptation, Probabilistic


def set_adaptation(module: nn.Module, **options: Unpack[Adaptation]) -> None:
    """Make all `Probabilistic` layers of a module adapt in this way from now on; no weight changes.

    Args:
        module: e.g. a trained model, or its backbone or head alone.
        **options: see `Adaptation`; None, or not given, leaves a layer as it is.

    Raises:
        InputError: an option does not exist or does not fit, or no layer could adapt.
    """
    for layer, given in _chosen(module, options):
        layer.set_adaptation(**given)


@contextmanager
def adapted(module: nn.Module, **options: Unpack[Adaptation]) -> Iterator[None]:
    """Set the adaptation as `set_adaptation` does while the context lasts; afterwards every layer is as before."""
    before: list[tuple[Probabilistic, Adaptation]] = []
    try:
        for layer, given in _chosen(module, options):
            before.append((layer, layer.set_adaptation(**given)))
        yield
    finally:
        for layer, held in before:
            layer.set_adaptation(**held)


def _chosen(module: nn.Module, options: Adaptation) -> list[tuple[Probabilistic, Adaptation]]:
    """Return the layers that are to change, each with the options that were given."""
    for name in options:
        if name not in Adaptation.__annotations__:
            raise unknown("option of adaptation", name, Adaptation.__annotations__)
    given = cast(Adaptation, {name: value for name, value in options.items() if value is not None})
    layers = [layer for layer in module.modules() if isinstance(layer, Probabilistic)]
    asked = [f"{name}={given[name]}" for name in ("key_adaptation", "value_propagation") if given.get(name)]
    if asked and not layers:
        raise InputError(f"{' and '.join(asked)}: {type(module).__name__} has no Probabilistic layer that could adapt")
    return [(layer, given) for layer in layers] if given else []
