"""Writes checkpoints whole or not at all, and keeps Lightning from removing anything outside of their folder."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from attention_zoo.errors import InputError
from attention_zoo.runs.files import write_bytes


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint only by one that is complete.

    Lightning moves a finished file to its place, which copies it where its temporary folder is on another disk: a
    process killed then, or a full disk, would leave a file cut short in place of the checkpoint before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint at ``path``; a remote path is left to `TorchCheckpointIO`.

        Raises:
            InputError: the file cannot be written; the one before stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(path, content.getbuffer())


def check_remembered(callback: ModelCheckpoint, path: Path) -> None:
    """Check which files a callback remembers from a checkpoint: Lightning removes them, folders too, for better ones.

    Lightning removes only what is in the callback's folder, but counts ``folder/../elsewhere``, files behind a link
    and every address of a remote file among that.

    Args:
        callback: the callback, after it took up its state.
        path: path of the checkpoint that the state is from.

    Raises:
        InputError: it remembers something that only seems to be in its folder, or something that is no file name.
    """
    best = callback.best_k_models
    if not isinstance(best, Mapping):
        raise InputError(f"checkpoint {path}: best_k_models of its ModelCheckpoint is no mapping")
    folder = str(callback.dirpath)
    for name in (callback.best_model_path, callback.kth_best_model_path, callback.last_model_path, *best):
        if not isinstance(name, str):
            raise InputError(f"checkpoint {path}: its ModelCheckpoint remembers {name!r:.60}, which is no file")
        if "://" in name or "::" in name:
            inside = name.startswith(f"{folder.rstrip('/')}/") and ".." not in name.split("/")
        else:
            seems_inside = Path(folder).absolute() in Path(name).absolute().parents
            inside = not seems_inside or Path(os.path.realpath(folder)) in Path(os.path.realpath(name)).parents
        if not inside:
            raise InputError(
                f"checkpoint {path}: its ModelCheckpoint remembers {name}, which is outside of {folder} and would be "
                "removed for a better one"
            )
