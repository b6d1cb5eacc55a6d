"""Which mixers the default suite puts through what is costly: compilation, export, every model.

One reading alone of each kind is compiled down to its gradient (``backend="aot_eager"``, in test_mixers). What is made
of readings, or has further options, is only captured as one graph (``backend="eager"``), in half the time.
"""

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


LEAST = ("DotProduct", "Probabilistic")
"""Those of a test whose every mixer costs seconds, and which another test covers by parts."""


LIKE_OTHERS = ("BiLevelRouting", "VariedSizeWindow", "VarsD", "VarsS")
"""Core mixers whose lines are for the most part those of others: of Routing, of Window, and both of VarsSD."""


def marks(name, core=CORE):
    """What marks a case of a mixer in a costly test: those that are not core belong to the slow tests."""
    return [] if name in core else [pytest.mark.slow]


def costly(names=None, core=CORE):
    """The self-mixers as parameters of a costly test."""
    names = az.list_mixers("self") if names is None else names
    return [pytest.param(name, marks=marks(name, core)) for name in names]
