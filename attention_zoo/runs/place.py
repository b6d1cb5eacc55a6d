"""The place in its training at which a run stands, and goes on when it is resumed."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import lightning as L

FIRST_EPOCH, FIRST_BATCH = "first_epoch", "first_batch"
"""The keys under which the data of a checkpoint keep a place: its epoch, and the batches that are behind the run."""


class Place(NamedTuple):
    """A place in a training.

    Attributes:
        epoch: the epoch, from 0.
        batches: batches of it, of each process, that are behind the run.
        total: batches of all epochs that Lightning has counted there; -1 if the place is of a file that told the epoch
            alone, which then is that of its last whole epochs.
    """

    epoch: int = 0
    batches: int = 0
    total: int = 0


@runtime_checkable
class Placed(Protocol):
    """Data whose order goes on from a place."""

    place: Place


def place_of(trainer: L.Trainer) -> Place | None:
    """Return the place with which a run goes on that is resumed from where a trainer stands; None if data have none.

    Batches are counted from the place with which the run began. Lightning's numbers of epochs do not tell: in a run
    that was resumed at the last batch of an epoch one of them runs ahead of the others.
    """
    with_data: Any = trainer
    data = with_data.datamodule
    if not isinstance(data, Placed):
        return None
    total, start = batches_of(trainer), data.place
    if total <= start.total:
        return start
    epochs, batches = divmod(start.batches + total - start.total, int(trainer.num_training_batches))
    return Place(start.epoch + epochs, batches, total)


def batches_of(trainer: L.Trainer) -> int:
    """Return the number of batches of all epochs that are behind a training, those before it was resumed included."""
    loop: Any = trainer.fit_loop
    return loop.epoch_loop.batch_progress.total.processed


def settle(checkpoint: dict[str, Any], place: Place) -> None:
    """Have a checkpoint's numbers of epochs tell the place at which it was written, as Lightning reads them.

    An epoch that ``max_steps`` and the like stop within it counts as one that has ended, and a run resumed from it
    would leave out the rest.

    Args:
        checkpoint: the content of a checkpoint, which is changed.
        place: the place at which it was written.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
    for counts in (progress["total"], progress["current"]):
        if place.batches and counts["processed"] == place.epoch + 1:  # stopped within the epoch
            counts["processed"] = counts["completed"] = place.epoch
        within = place.epoch == counts["processed"] + (0 if place.batches else 1)
        if within or place == (counts["processed"], 0, place.total):
            counts["ready"] = counts["started"] = counts["processed"] + within
