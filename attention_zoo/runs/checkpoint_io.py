"""Checkpoints that are written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from attention_zoo.runs.files import write_bytes


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint only by one that is complete.

    Lightning moves a finished file to its place, which copies it where its temporary folder is on another disk: a
    process killed then, or a full disk, would leave a file cut short in place of the checkpoint before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """See TorchCheckpointIO; what is not on a disk of this machine is written by it.

        Raises:
            InputError: the file cannot be written; the one before stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(path, content.getbuffer())
