"""Sweeps: one recipe over mixers, seeds and any other axis, planned as a list of runs and carried out."""

from attention_zoo.sweeps.driver import carry_out
from attention_zoo.sweeps.job import Job
from attention_zoo.sweeps.plan import Plan, Run

__all__ = ["Job", "Plan", "Run", "carry_out"]
