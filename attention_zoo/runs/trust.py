"""Decides which classes a checkpoint may name: whoever wrote the file chose the config inside it.

It may name classes of `PACKAGES` that build models, data and trainings; anything else, such as a person's own mixer
by its dotted path, needs the reader's trust in the file.
"""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError
from attention_zoo.runs.loggers import NAME, RUN

PACKAGES = ("attention_zoo", "datamodules", "tasks", "torch", "torchvision", "timm", "lightning")
"""Packages whose classes a checkpoint may name, within the limits of `is_allowed`."""

OWN = ("attention_zoo", "datamodules", "tasks")
"""Packages of this project."""

APART = ("attention_zoo.cli", "attention_zoo.sweeps", "attention_zoo.runs", "datamodules.predictions")
"""Modules of this project that start commands and write files; a checkpoint may not name their classes."""

OF_TORCH = ("torch.nn", "torch.optim")
"""Modules of torch whose classes compute and do no more: others load files, start processes or run what they read."""

TRUSTED = "ATTENTION_ZOO_TRUSTED"
"""Environment variable: folders, separated as in PATH, whose checkpoints are trusted."""

FLAG = "--trust_checkpoint true"
"""The option of the command line that trusts one checkpoint."""

WRITES = ("dirpath", "save_dir", "root_dir", "log_dir", "dir", "folder", "path", "out", "default_root_dir", "version")
"""Arguments of callbacks, loggers and profilers that say where they write."""


def is_trusted(path: Path, flag: bool) -> bool:
    """Return whether the checkpoint at ``path`` may name any class: by ``flag``, or by the folder it lies in."""
    folders = [Path(folder).resolve() for folder in os.environ.get(TRUSTED, "").split(os.pathsep) if folder]
    return flag or any(folder in path.resolve().parents for folder in folders)


def untrusted(path: Path, names: str) -> InputError:
    """Return the error about a checkpoint that would need trust.

    Args:
        path: path of the checkpoint.
        names: words on what it names or asks for, beginning with the verb.
    """
    return InputError(f"checkpoint {path} {names}; if you trust the file, add {FLAG} or list its folder in {TRUSTED}")


def foreign(path: Path, name: str) -> InputError:
    """Return the error about a class that the checkpoint at ``path`` names and may not."""
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
        if text in (RUN, NAME) or (key == "version" and not text):
            continue  # in the run's folder; "" is the version of TensorBoard's curves there
        if key in WRITES or os.path.isabs(text) or text.startswith("~") or ".." in Path(text).parts:
            raise untrusted(path, f"says where to write: {key} is {text!r}")


def is_allowed(named: Any) -> bool:
    """Return whether a checkpoint may name an object: it must be a class, of an allowed module and an allowed kind."""
    if not isinstance(named, type):
        return False
    module = f"{named.__module__}."
    if module.startswith(tuple(f"{name}." for name in OWN)):
        return not module.startswith(tuple(f"{name}." for name in APART))
    if module.startswith("torch."):
        return module.startswith(tuple(f"{name}." for name in OF_TORCH))
    return module.startswith(tuple(f"{name}." for name in PACKAGES)) and issubclass(named, _kinds())


def _kinds() -> tuple[type, ...]:
    """Return the bases that classes of torchvision, timm and lightning may have; their constructors do no harm."""
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
    """Yield each string of a config, its keys too, after the key that it stands under."""
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
    """Return whether importing a dotted path would run code: of a module, or of one inside folders without code."""
    parts = path.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:depth]))  # imports the folders around it, which hold no code themselves
        except (ImportError, ValueError):
            return False
        if spec is None or spec.origin is not None:
            return spec is not None
    return False
