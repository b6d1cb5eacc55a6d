"""Lets an evaluation that was interrupted go on where it stopped."""

import hashlib
import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from attention_zoo.errors import InputError
from attention_zoo.evaluation import OF_THE_LOADING, Cell, Resumable
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.files import write_bytes
from attention_zoo.runs.folders import refuse_links
from attention_zoo.runs.sources import fingerprint

UNFINISHED = "unfinished"
"""Name of the folder of the counts, inside the run folder."""

EVERY = 20
"""Number of batches after which the counts are written to disk, if there are many."""

PARTS = 10
"""Number of parts of an evaluation of fewer batches, after each of which they are written."""


def identity(config: Mapping[str, Any], checkpoint: Checkpoint | None) -> str:
    """Return everything about a command that the counts depend on, as JSON text."""
    data = dict(config["data"])
    data["init_args"] = {key: value for key, value in data.get("init_args", {}).items() if key not in OF_THE_LOADING}
    weights = [str(checkpoint.path.absolute()), checkpoint.path.stat().st_mtime_ns] if checkpoint else None
    versions = [version(package) for package in ("attention_zoo", "torch", "timm")]
    return json.dumps([{**config, "data": data}, weights, versions], sort_keys=True)


class Unfinished(Callback):
    """Keeps the counts of a `Resumable` task, so that the same evaluation goes on after an interruption.

    Each process has a file of its own, named after all that the counts depend on: also the code of task, model, data.
    It is gone once the evaluation is done. An evaluation of a part of the data (``trainer.limit_test_batches``) is not
    kept.

    Args:
        folder: the folder of the files.
        identity: the text of `identity` about model, weights, data and versions.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.path: Path | None = None
        self.counts: dict[str, Tensor] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Look for counts, and let the data begin after the samples that they cover."""
        with_data: Any = trainer
        data = with_data.datamodule
        if stage != "test" or trainer.limit_test_batches != 1.0:
            return
        if not isinstance(pl_module, Resumable) or not hasattr(data, "tested"):
            return
        parts: list[Cell] = getattr(data, "cells", None) or []
        cells = [(cell.benchmark.name, cell.images, cell.corruption, cell.severity) for cell in parts]
        code = fingerprint(pl_module, data)
        order = getattr(data, "order", "")
        everything = f"{self.identity} {code} {trainer.world_size} {trainer.precision} {cells}{order}"
        digest = hashlib.sha256(everything.encode()).hexdigest()[:16]
        refuse_links(self.folder)
        self.path = self.folder / f"{digest}-{trainer.global_rank}.pt"
        self.counts = _counts(self.path)
        if self.counts is not None:
            data.tested = int(self.counts["seen"])
            rank_zero_info(
                f"goes on with an evaluation that was interrupted after {data.tested} images a process; "
                f"delete {self.folder} to start anew"
            )

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hand the counts to the task, if there are any."""
        if self.counts and isinstance(pl_module, Resumable):
            pl_module.go_on(self.counts)

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: object) -> None:
        """Write the counts every `EVERY` batches, or after each of `PARTS` parts if there are few batches.

        After the last batch nothing is left to go on with.

        Raises:
            InputError: the counts of the task do not say how many samples they are of.
        """
        progress = trainer.test_loop.batch_progress
        every = int(max(1, min(EVERY, sum(trainer.num_test_batches) / PARTS)))
        if self.path is None or progress.is_last_batch or progress.current.ready % every:
            return
        if not isinstance(pl_module, Resumable):
            return
        progressed, counts = pl_module.progress(), io.BytesIO()
        if not isinstance(progressed.get("seen"), Tensor):
            task = type(pl_module).__name__
            raise InputError(f"{task}.progress() must have 'seen', a tensor of the number of samples processed so far")
        torch.save(progressed, counts)
        try:
            write_bytes(self.path, counts.getbuffer())
        except InputError as error:
            rank_zero_warn(f"an interruption would lose this evaluation: {error}")
            self.path = None

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the counts, since the evaluation is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()


def _counts(path: Path) -> dict[str, Tensor] | None:
    """Return the counts in the file ``path``; None if it does not exist.

    Raises:
        InputError: the file holds no counts.
    """
    if not path.is_file():
        return None
    try:
        counts = torch.load(path, weights_only=True)
        int(counts["seen"])
    except Exception as error:  # a foreign file can make the reader fail in any way
        raise InputError(f"{path} holds no counts of an evaluation; delete it to start anew") from error
    return counts
