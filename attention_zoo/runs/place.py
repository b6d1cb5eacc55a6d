"""The place in its training at which a run stands, and goes on when it is resumed."""

from typing import Any, NamedTuple

import lightning as L


class Place(NamedTuple):
    """A place in a training.

    Attributes:
        epoch: the epoch, from 0.
        batches: batches of it, of each process, that are behind the run.
    """

    epoch: int = 0
    batches: int = 0


def place_of(trainer: L.Trainer) -> Place:
    """Return the place with which a run goes on that is resumed from where a trainer stands."""
    begun, ended, batches = _progress(trainer)
    if stopped_within(trainer):
        return Place(ended - 1, batches)
    if begun == ended:
        return Place(ended)
    return Place(ended, batches) if batches < trainer.num_training_batches else Place(ended + 1)


def stopped_within(trainer: L.Trainer) -> bool:
    """Return whether the training has ended an epoch before its last batch, as ``max_steps`` does."""
    begun, ended, batches = _progress(trainer)
    return begun == ended and 0 < batches < trainer.num_training_batches


def reopen(checkpoint: dict[str, Any]) -> None:
    """Have a checkpoint of a training that was `stopped_within` an epoch say that the epoch has not ended.

    Lightning counts it as one that has, and a run resumed from it would leave out the rest.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["processed"] -= 1


def _progress(trainer: L.Trainer) -> tuple[int, int, int]:
    """Return how many epochs have begun, how many have ended, and how many batches of the last one are done.

    While the hooks run in which checkpoints are written, ``completed`` is not increased yet.
    """
    loop: Any = trainer.fit_loop
    epochs = loop.epoch_progress.current
    return epochs.ready, epochs.processed, loop.epoch_loop.batch_progress.current.processed
