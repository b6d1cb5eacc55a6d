"""Seeds every random draw by its purpose and position, not by what ran before.

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
    """Return the seed of this run, which Lightning's ``seed_everything`` sets for all its processes; 0 if unset."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def derive_seed(*parts: int) -> int:
    """Return a 32-bit seed made from any number of non-negative integers; different tuples give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators by ``derive_seed(*parts)`` in the block; restore them after."""
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
