"""The mixers, one file each, and the code that all share: `base`, `registry`, `swapping` and `adaptation`.

`attention_zoo` calls `import_all` as soon as it has the names that a mixer's own file may import from it.
"""

import importlib
import pkgutil

from attention_zoo.mixers.registry import BROKEN, MIXERS, Mixer


def import_all() -> None:
    """Import every module of this package and its subpackages, so that each registers its mixer."""
    modules = pkgutil.walk_packages(__path__, f"{__name__}.", onerror=lambda name: None)  # imported again below
    for module in sorted(found.name for found in modules):
        try:
            importlib.import_module(module)
        except Exception as error:  # a person's own file may raise anything
            BROKEN[module] = error


def __getattr__(name: str) -> type[Mixer]:
    """Return a registered mixer class by its name, so that ``from attention_zoo.mixers import VarsD`` works."""
    if name not in MIXERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return MIXERS[name]
