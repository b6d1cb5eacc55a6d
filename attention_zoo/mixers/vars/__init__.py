"""VARS: attention as recurrent sparse reconstruction. `s`, `d` and `sd` are its mixers, the rest is what they share."""

from attention_zoo.mixers.vars.d import VarsD
from attention_zoo.mixers.vars.s import VarsS
from attention_zoo.mixers.vars.sd import VarsSD

__all__ = ["VarsD", "VarsS", "VarsSD"]
