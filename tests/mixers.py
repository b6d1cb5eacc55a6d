"""Which mixers the default suite puts through what is costly: compilation, export, every model."""

import pytest

import attention_zoo as az

CORE = (
    "BiLevelRouting",
    "Differential",
    "DotProduct",
    "DoublyNormalized",
    "GlobalFilter",
    "KMeans",
    "Linear",
    "Performer",
    "Pro",
    "Probabilistic",
    "Routing",
    "VariedSizeWindow",
    "VarsD",
    "VarsS",
    "VarsSD",
    "Window",
)
"""One or more of each kind of code: fused, iterated, clustered, in windows, with convolutions, sampled."""


def costly(names=None):
    """The self-mixers as parameters of a test; those that are not core belong to the slow tests."""
    names = az.list_mixers("self") if names is None else names
    return [pytest.param(name, marks=[] if name in CORE else [pytest.mark.slow]) for name in names]
