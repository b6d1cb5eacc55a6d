"""What a checkpoint says about itself, read without running any code from it."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from attention_zoo.errors import InputError

CONFIG = "config"
"""Key of a checkpoint under which the command line keeps its config, as YAML."""

OF_THE_MACHINE = ("accelerator", "strategy", "devices", "num_nodes", "logger")
"""Trainer arguments of a fit that its evaluation, elsewhere and without curves, does not take over."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, without its tensors."""

    path: Path
    config: dict[str, Any] | None
    epoch: int
    step: int
    best: str | None
    """Where the best checkpoint of the same run was, if the run watched a metric."""

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run that wrote it, wherever that was moved to."""
        return next((folder for folder in self.path.absolute().parents[:2] if (folder / "config.yaml").is_file()), None)

    def config_for(self, command: str) -> str | None:
        """The config as YAML; a fit continues with all of it, other commands leave out what belongs to the machine."""
        if self.config is None:
            return None
        trainer = dict(self.config.get("trainer") or {})
        for key in OF_THE_MACHINE if command != "fit" else ():
            trainer.pop(key, None)
        return yaml.safe_dump({**self.config, "trainer": trainer}, sort_keys=False)


def read_checkpoint(path: Path) -> Checkpoint:
    """What the checkpoint at ``path`` says about itself.

    Raises:
        InputError: no such file, no checkpoint, or one that would run code when it is loaded.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist" if not path.exists() else f"{path} is a folder")
    content = _load(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint of this program: it has no state_dict")
    text = content.get(CONFIG)
    config = yaml.safe_load(text) if isinstance(text, str) else None
    watched = [
        state["best_model_path"]
        for name, state in (content.get("callbacks") or {}).items()
        if name.startswith("ModelCheckpoint") and state.get("monitor") and state.get("best_model_path")
    ]
    return Checkpoint(
        path=path,
        config=config if isinstance(config, dict) else None,
        epoch=int(content.get("epoch", 0)),
        step=int(content.get("global_step", 0)),
        best=next(iter(watched), None),
    )


def _load(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a checkpoint (or one that was cut short)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise InputError(f"{path} is not a checkpoint") from error
        raise InputError(
            f"checkpoint {path} refused: it holds more than tensors and plain values, so loading it could run code"
        ) from error
    except Exception as error:  # whatever a foreign file makes of the reader
        raise InputError(f"{path} is not a checkpoint") from error
