"""VARS: attention as recurrent sparse reconstruction. The mixers are in `s`, `d` and `sd`; they share the rest."""

from attention_zoo.mixers.vars.d import VarsD
from attention_zoo.mixers.vars.s import VarsS
from attention_zoo.mixers.vars.sd import VarsSD

__all__ = ["VarsD", "VarsS", "VarsSD"]
