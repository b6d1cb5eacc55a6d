"""Whose code a checkpoint may name: the config inside it is the word of whoever wrote the file.

Classes of `PACKAGES` that build models, data and trainings may be named; all else, such as a person's own mixer by its
dotted path, needs the reader's trust in the file.
"""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError

PACKAGES = ("attention_zoo", "datamodules", "tasks", "torch", "torchvision", "timm", "lightning")
"""Whose classes a checkpoint may name."""

OWN = ("attention_zoo", "datamodules", "tasks")
"""Packages of this project."""

APART = ("attention_zoo.cli", "attention_zoo.sweeps", "attention_zoo.runs")
"""Modules of it that start commands and write files."""

OF_TORCH = ("torch.nn", "torch.optim")
"""Modules of torch whose classes compute and do no more: others load files, start processes or run what they read."""

TRUSTED = "ATTENTION_ZOO_TRUSTED"
"""Environment variable: folders, separated as in PATH, whose checkpoints are trusted."""

FLAG = "--trust_checkpoint true"
"""What trusts one checkpoint."""

WRITES = ("dirpath", "save_dir", "root_dir", "log_dir", "dir", "folder", "path", "out", "default_root_dir", "version")
"""Arguments of callbacks, loggers and profilers that say where they write."""


def is_trusted(path: Path, flag: bool) -> bool:
    """Whether the checkpoint at ``path`` may name any class: by ``flag``, or by the folder it lies in."""
    folders = [Path(folder).resolve() for folder in os.environ.get(TRUSTED, "").split(os.pathsep) if folder]
    return flag or any(folder in path.resolve().parents for folder in folders)


def untrusted(path: Path, names: str) -> InputError:
    """The error about a checkpoint that would need trust.

    Args:
        path: of the checkpoint.
        names: what it names, with its verb.
    """
    return InputError(f"checkpoint {path} {names}; if you trust the file, add {FLAG} or list its folder in {TRUSTED}")


def foreign(path: Path, name: str) -> InputError:
    """The error about a class that the checkpoint at ``path`` names and may not."""
    return untrusted(path, f"names {name}, which is no class for models, data or training of {', '.join(PACKAGES)}")


def check_names(config: Any, path: Path) -> None:
    """Refuse import paths that lead out of `PACKAGES`, before anything is imported.

    A string counts as an import path where it stands under ``class_path``, and elsewhere where Python could import
    code by it.

    Raises:
        InputError: some string in ``config``, at any depth, is such a path.
    """
    for key, text in _strings(config):
        head, dot, _ = text.partition(".")
        if not (dot and all(part.isidentifier() for part in text.split("."))) or head in PACKAGES:
            continue
        if key == "class_path" or _importable(text):
            raise foreign(path, text)


def check_places(trainer: Any, path: Path) -> None:
    """Refuse arguments of a trainer that say where files are written: a checkpoint's run writes in its own folder.

    Raises:
        InputError: there is such an argument, or a string that is a path out of the folder.
    """
    for key, text in _strings(trainer):
        if key in WRITES or os.path.isabs(text) or text.startswith("~") or ".." in Path(text).parts:
            raise untrusted(path, f"says where to write: {key} is {text!r}")


def is_allowed(named: Any) -> bool:
    """Whether a checkpoint may name this object: a class, by where it is defined and what it is."""
    if not isinstance(named, type):
        return False
    module = f"{named.__module__}."
    if module.startswith(tuple(f"{name}." for name in OWN)):
        return not module.startswith(tuple(f"{name}." for name in APART))
    if module.startswith("torch."):
        return module.startswith(tuple(f"{name}." for name in OF_TORCH))
    return module.startswith(tuple(f"{name}." for name in PACKAGES)) and issubclass(named, _kinds())


def _kinds() -> tuple[type, ...]:
    """What classes of torchvision, timm and lightning may be; constructors of these write nothing and start nothing."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from lightning.pytorch.plugins import ClusterEnvironment, LayerSync, Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    of_models = (nn.Module, Optimizer, LRScheduler, L.LightningDataModule)
    of_trainers = (Callback, CSVLogger, TensorBoardLogger, ClusterEnvironment, LayerSync, Precision, Profiler, Strategy)
    return of_models + of_trainers


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings of a config, keys too, each with the key that it stands under."""
    waiting = [(key, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, Mapping):
            yield from (("", name) for name in value if isinstance(name, str))
            waiting += [(str(name).rstrip("+"), child) for name, child in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(key, child) for child in value]


def _importable(path: str) -> bool:
    """Whether the import of a dotted path would run code that is there: of a module, or of one in folders without."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            found = find_spec(".".join(parts[:depth]))  # imports the folders around it, which hold no code themselves
        except (ImportError, ValueError):
            return False
        if found is None or found.origin is not None:
            return found is not None
    return False
