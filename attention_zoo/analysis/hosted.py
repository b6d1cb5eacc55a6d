"""Looks at layers of other hosts: what they hand to their mixer in a forward pass, which projects nothing itself."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from attention_zoo.hosts.base import HostLayer
from attention_zoo.mixers.base import SelfMixer, log_mask


class Handed(NamedTuple):
    """What a host layer hands to its mixer.

    Attributes:
        q: queries (B, H, N, D), with positions and norms if the host has some.
        k: keys (B, H, N, D).
        v: values (B, H, N, D).
        bias: what the host adds to the scores, an additive mask that broadcasts to (B, H, N, N); None for nothing.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None


@contextmanager
def handed(layers: Sequence[HostLayer]) -> Iterator[dict[HostLayer, Handed]]:
    """Yield what each of the layers hands to its mixer in its last forward pass inside the context; else nothing."""
    found: dict[HostLayer, Handed] = {}
    try:
        for layer in layers:
            vars(layer)["mix"] = _recorder(layer, found)
        yield found
    finally:
        for layer in layers:
            vars(layer).pop("mix", None)


def _recorder(layer: HostLayer, found: dict[HostLayer, Handed]) -> Any:
    mix = layer.mix

    def record(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, is_causal: bool = False) -> Tensor:
        found[layer] = Handed(q, k, v, log_mask(q, k, bias, is_causal))
        return mix(q, k, v, bias, is_causal)

    return record


def with_projections(layer: HostLayer, seen: Handed) -> SelfMixer:
    """Return the mixer of a host layer as one that projects: any tokens become what the layer handed to it.

    All that a mixer says of tokens (its `attention_map`, steps, atoms, assignments) it then says of these.
    """
    mixer = copy.copy(layer.mixer)
    own: dict[str, Any] = vars(mixer)
    own["project"] = lambda *_, **__: (seen.q, seen.k, seen.v)
    if seen.bias is not None:
        bias = seen.bias
        own["attention_map"] = lambda *_, **__: layer.mixer.masked_map_weights(seen.q, seen.k, seen.v, bias)
    return mixer
