"""Checkpoints that are written whole or not at all."""

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint only by one that is complete.

    Lightning moves a finished file to its place, which copies it where its temporary folder is on another disk: a
    process killed then, or a full disk, would leave a file cut short in place of the checkpoint before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """See TorchCheckpointIO; what is not on a disk of this machine is written by it."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        whole = Path(path)
        partial = whole.with_name(f".{whole.name}.partial")
        try:
            super().save_checkpoint(checkpoint, partial, storage_options)
            partial.replace(whole)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
