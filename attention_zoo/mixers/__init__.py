"""One file per mixer; each reads like its paper. Importing this package registers those it names."""

from attention_zoo.mixers.dot_product import DotProduct
from attention_zoo.mixers.performer import Performer
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.mixers.vars_d import VarsD

__all__ = ["DotProduct", "Performer", "Probabilistic", "VarsD"]
