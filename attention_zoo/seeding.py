"""Randomness that depends on what it is for, not on what ran before.

Every random draw of a run (order of the samples, augmentation, mixing, dropout) comes from a seed derived from
the run's seed and a position: epoch, sample index or optimisation step. So a run that was killed and resumed, or
that loads its data with another number of workers, draws the same numbers as one that was not.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def run_seed() -> int:
    """The seed of this run, as Lightning's ``seed_everything`` left it for all its processes (0 without one)."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def derive_seed(*parts: int) -> int:
    """A 32-bit seed from any number of non-negative integers; different tuples give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Inside, Python's, numpy's and torch's CPU generators start from ``derive_seed(*parts)``; restored after."""
    seed = derive_seed(*parts)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
