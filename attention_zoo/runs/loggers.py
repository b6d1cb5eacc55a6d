"""Places loggers in the folder of their run, and tells which extra one needs that is not installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from attention_zoo.errors import InputError

RUN, NAME = "{run}", "{name}"
"""Texts in the arguments of a logger that stand for the run's folder, and for the name of that folder."""

EXTRAS = {"MLFlowLogger": "mlflow", "TrackioLogger": "trackio", "WandbLogger": "wandb"}
"""Loggers by the names of their classes, each with its library, after which an extra of the package is named."""


def placed(loggers: Any, folder: Path) -> Any:
    """Return the loggers of a config with `RUN` and `NAME` in their arguments replaced.

    Args:
        loggers: one parsed logger, a list of them, or another value of ``trainer.logger``, which is returned as it is.
        folder: the run folder.
    """
    return _replaced(loggers, {RUN: str(folder), NAME: folder.resolve().name})


def unplaced(loggers: Any, folder: Path) -> Any:
    """Return loggers that `placed` gave as they were: what a config says holds for any run."""
    return _replaced(loggers, {str(folder): RUN, folder.resolve().name: NAME})


def _replaced(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, Namespace):
        return Namespace(**{key: _replaced(each, words) for key, each in vars(value).items()})
    if isinstance(value, dict):
        return {key: _replaced(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, words) for each in value]
    return words.get(value, value) if isinstance(value, str) else value


def check_installed(loggers: Any) -> None:
    """Check that the libraries of loggers are installed; their constructors would say so at length.

    Args:
        loggers: one parsed logger, a list of them, or another value of ``trainer.logger``.

    Raises:
        InputError: one is not; the message names the extra.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        extra = EXTRAS.get(logger["class_path"].rpartition(".")[2]) if isinstance(logger, Namespace) else None
        if extra is not None and find_spec(extra) is None:
            raise InputError(f'trainer.logger: {extra} is not installed: pip install "attention_zoo[{extra}]"')
