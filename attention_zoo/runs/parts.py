"""How much of the data an evaluation looks at, where an option of the trainer cuts it short."""

from collections.abc import Mapping
from typing import Any

import lightning as L


def part_of_batches(trainer: L.Trainer, stage: str) -> str | None:
    """Return how many batches of how many are evaluated, ``3 of 7 batches``; None for all, or if nobody knows.

    Args:
        trainer: within a validation or a test.
        stage: ``validate`` or ``test``.
    """
    known: Any = trainer
    loaders = known.test_dataloaders if stage == "test" else known.val_dataloaders
    batches = known.num_test_batches if stage == "test" else known.num_val_batches
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    try:
        every = sum(map(len, loaders if isinstance(loaders, list) else [loaders]))
    except TypeError:  # of data without a length
        return None
    return f"{sum(batches)} of {every} batches" if sum(batches) < every else None
