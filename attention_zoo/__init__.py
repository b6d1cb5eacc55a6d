"""attention_zoo: the readings of attention as interchangeable token mixers.

Shapes throughout: B batch, N tokens, M pixels, features or atoms, L queries, H heads, D width of a head,
dim = H * D.
"""

from importlib.metadata import version

from attention_zoo.errors import InputError
from attention_zoo.functional.fixed_units import FixedValues
from attention_zoo.mixers import import_all
from attention_zoo.mixers.adaptation import adapted, set_adaptation
from attention_zoo.mixers.axial import Axial
from attention_zoo.mixers.base import CrossMixer, HostOptions, MixerFactory, SelfMixer
from attention_zoo.mixers.losses import auxiliary_loss
from attention_zoo.mixers.mixture_of_heads import MixtureOfHeads
from attention_zoo.mixers.registry import MIXERS, MixerInfo, create_mixer, list_mixers, mixer_info, register
from attention_zoo.mixers.swapping import attn_layer, swap_mixers
from attention_zoo.mixers.token_aware_pooling import TokenAwarePooling
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
    "mixer_info",
    "register",
    "set_adaptation",
    "swap_mixers",
]

import_all()  # last, so that a mixer's own file may say `import attention_zoo`
