"""attention_zoo: the readings of attention as interchangeable token mixers.

Shapes throughout: B batch, N tokens, M pixels, features or atoms, L queries, H heads, D width of a head,
dim = H * D.
"""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

__version__ = version("attention_zoo")

__all__ = [
    "MIXERS",
    "Axial",
    "CrossMixer",
    "FixedValues",
    "HostOptions",
    "InputError",
    "Loaded",
    "MixerFactory",
    "MixerInfo",
    "MixtureOfHeads",
    "Outputs",
    "SelfMixer",
    "TokenAwarePooling",
    "TopDown",
    "adapted",
    "attn_layer",
    "auxiliary_loss",
    "create_mixer",
    "list_mixers",
    "load",
    "mixer_info",
    "register",
    "set_adaptation",
    "swap_mixers",
]

COMMAND = "attention-zoo"
"""The name of the program that an installation has for the command line."""


def _is_program() -> bool:
    """Return whether Python was started for the command line, as ``python -m attention_zoo`` or as `COMMAND`."""
    words = sys.orig_argv[1:]
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return module == [__name__] or (bool(words) and Path(words[0]).name == COMMAND)


def _complete() -> None:
    """Give this module its public names, and import every mixer's own file, which may say `import attention_zoo`."""
    public = importlib.import_module(f"{__name__}.public")  # `from attention_zoo import` would ask this module for it
    from attention_zoo.mixers import import_all

    globals().update({name: getattr(public, name) for name in __all__})
    import_all()


if _is_program():  # torch and timm take seconds to import, for which a command that does without need not wait

    def __getattr__(name: str) -> Any:
        """Return a public name, after importing all of the library at the first one that is asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _complete()
        return globals()[name]
else:
    from attention_zoo.public import *  # for type checkers; see `_complete`

    _complete()
