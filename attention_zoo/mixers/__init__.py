"""One file per mixer; each reads like its paper. Importing this package imports all of them, which registers them."""

import importlib
import pkgutil

from attention_zoo.registry import MIXERS, Mixer

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")


def __getattr__(name: str) -> type[Mixer]:
    """A registered mixer by its name, so that ``from attention_zoo.mixers import VarsD`` works."""
    if name not in MIXERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return MIXERS[name]
