"""The callback that tells a person what a training found, where it writes, and what comes next."""

import shlex
from math import prod
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from attention_zoo.runs.place import place_of
from attention_zoo.terminal import counted, printable

NAMED = 6
"""Number of classes that are named."""

PARTS = {"train": "to train on", "val": "to validate on"}
"""Parts of the data that a training reads, and what they are for."""


class Account(Callback):
    """Says before a training what the data have and where the run is kept, and after it how it is tested.

    Args:
        folder: the run folder.
        program: the words that start the command line.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.program = folder, program

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what the data have, where the run is kept, and of several processes how large a step they make."""
        with_data: Any = trainer
        rank_zero_info(f"data: {described(with_data.datamodule)}")
        rank_zero_info(f"run folder: {printable(self.folder)}")
        step = step_of(trainer)
        if step is not None:
            rank_zero_info(step)

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what tests the model, if there is a checkpoint of it."""
        path = checkpoint_of(trainer)
        if path is not None:
            command = f"{self.program} test --ckpt_path {shlex.quote(printable(path))}"
            rank_zero_info(f"trained {trained(trainer)}; to test it: {command}")


def step_of(trainer: Any) -> str | None:
    """Return how many images a step of several processes has, and that its learning rate does not follow them.

    None for one process, which has the batches of its config, and where the data tell no size of a batch.
    """
    size = getattr(trainer.datamodule, "batch_size", None)
    if trainer.world_size < 2 or not isinstance(size, int):
        return None
    factors = {"process": trainer.world_size, "image": size, "batch": trainer.accumulate_grad_batches}
    if factors["batch"] < 2:
        del factors["batch"]
    words = " x ".join(
        counted(count, noun, f"{noun}es" if noun[-1] in "sh" else None) for noun, count in factors.items()
    )
    return (
        f"a step: {words} = {counted(prod(factors.values()), 'image')}; the learning rate is that of the config for "
        f"any number of processes (data.batch_size is that of each)"
    )


def trained(trainer: L.Trainer) -> str:
    """Return how many epochs, and batches of one that was not ended, a training has behind it."""
    place = place_of(trainer)
    epochs = counted(trainer.current_epoch if place is None else place.epoch, "epoch")
    if place is None or not place.batches:
        return epochs
    batches = f"{place.batches} of {counted(int(trainer.num_training_batches), 'batch', 'batches')}"
    return f"{epochs} and {batches} of the next" if place.epoch else f"{batches} of the first epoch"


def described(data: Any) -> str:
    """Return the name of the data, their classes, and the sizes of the parts that were read, as far as they tell.

    Folders that were taken for parts are said where they are not called so.
    """
    names = getattr(data, "class_names", None)
    facts = []
    if names:
        few = ", ".join(map(str, names[:NAMED])) + (", ..." if len(names) > NAMED else "")
        facts.append(f"{counted(len(names), 'class', 'classes')} ({printable(few)})")
    splits = getattr(data, "splits", {})
    facts += [f"{counted(len(splits[part].images), 'image')} {text}" for part, text in PARTS.items() if part in splits]
    taken = [f"{name} for {part}" for part, name in getattr(data, "part_folders", {}).items() if name != part]
    facts += [f"folders taken: {printable(', '.join(taken))}"] if taken else []
    return ", ".join([type(data).__name__, *facts])


def checkpoint_of(trainer: L.Trainer) -> Path | None:
    """Return the best checkpoint of a run that watched a metric, else its last one; None if nothing was kept."""
    kept = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    best = [callback.best_model_path for callback in sorted(kept, key=lambda each: each.monitor is None)]
    path = next((path for path in best if path), None)
    return None if path is None else _near(Path(path))


def _near(path: Path) -> Path:
    """Return a path as it is written from the working folder, if it is below that."""
    here = Path.cwd().resolve()
    return path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path
