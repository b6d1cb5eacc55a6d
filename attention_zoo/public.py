"""The names of the library that a person uses; `attention_zoo` has them all as its own, by its `__all__`."""

from attention_zoo.cli.loading import Loaded, load
from attention_zoo.errors import InputError
from attention_zoo.functional.fixed_units import FixedValues
from attention_zoo.mixers.adaptation import adapted, set_adaptation
from attention_zoo.mixers.axial import Axial
from attention_zoo.mixers.base import HostOptions, MixerFactory, SelfMixer
from attention_zoo.mixers.cross import CrossMixer
from attention_zoo.mixers.losses import auxiliary_loss
from attention_zoo.mixers.mixture_of_heads import MixtureOfHeads
from attention_zoo.mixers.registry import MIXERS, MixerInfo, create_mixer, list_mixers, mixer_info, register
from attention_zoo.mixers.swapping import attn_layer, swap_mixers
from attention_zoo.mixers.token_aware_pooling import TokenAwarePooling
from attention_zoo.models import TopDown
from attention_zoo.outputs import Outputs
