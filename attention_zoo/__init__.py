"""attention_zoo: the readings of attention as interchangeable token mixers.

Shapes throughout: B batch, N tokens, M pixels, features or atoms, L queries, H heads, D width of a head,
dim = H * D.
"""

from importlib.metadata import version

# What a mixer's own file needs comes first: the file may say `import attention_zoo` and is imported in the next step.
from attention_zoo.errors import InputError
from attention_zoo.functional.fixed_units import FixedValues
from attention_zoo.hosts import attn_layer, swap_mixers
from attention_zoo.interface import CrossMixer, HostOptions, MixerFactory, SelfMixer
from attention_zoo.registry import MIXERS, MixerInfo, create_mixer, list_mixers, mixer_info, register

# isort: split
import attention_zoo.mixers  # noqa: F401  registers them
from attention_zoo.adaptation import adapted, set_adaptation
from attention_zoo.mixers.axial import Axial
from attention_zoo.models import TopDown
from attention_zoo.outputs import Outputs

__version__ = version("attention_zoo")

__all__ = [
    "MIXERS",
    "Axial",
    "CrossMixer",
    "FixedValues",
    "HostOptions",
    "InputError",
    "MixerFactory",
    "MixerInfo",
    "Outputs",
    "SelfMixer",
    "TopDown",
    "adapted",
    "attn_layer",
    "create_mixer",
    "list_mixers",
    "mixer_info",
    "register",
    "set_adaptation",
    "swap_mixers",
]
