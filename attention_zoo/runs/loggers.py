"""Places loggers in the folder of their run, and tells which extra one needs that is not installed."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

RUN, NAME = "{run}", "{name}"
"""Texts in the arguments of a logger that stand for the run's folder, and for the name of that folder."""

EXTRAS = ("mlflow", "trackio", "wandb")
"""Extras of the package that are named after the logger's library."""


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


def not_installed(error: BaseException) -> str | None:
    """Return the line about a logger whose library is not installed; None for any other error."""
    if not isinstance(error, ImportError):
        return None
    named = f"{error.name} {error}".lower()
    extra = next((extra for extra in EXTRAS if extra in named), None)
    return extra and f'trainer.logger: {extra} is not installed: pip install "attention_zoo[{extra}]"'
