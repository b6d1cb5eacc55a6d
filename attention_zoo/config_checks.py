"""Checks the values of a parsed config, including those of classes of other libraries.

jsonargparse checks types only. Lightning and torch accept what it lets through, such as NaN, -5 devices or a seed of
1e20, and end in a traceback, in a run that learns nothing or in one that never ends.
"""

import enum
import functools
import inspect
import os
import pydoc
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, get_type_hints

from jsonargparse import Namespace

from attention_zoo.domains import (
    LARGEST_INTEGER,
    NOT_NEGATIVE,
    OWN,
    Domain,
    Fraction,
    PositiveInt,
    Seed,
    complaint,
    shown,
)
from attention_zoo.errors import InputError

_AtLeastMinusOne = Annotated[int, Domain(least=-1)]
_Batches = Annotated[int, Domain(least=0)] | Fraction | None
_Devices = Annotated[int, Domain(least=1, most=1024)]

TRAINER: dict[str, Any] = {
    "max_epochs": _AtLeastMinusOne | None,
    "max_steps": _AtLeastMinusOne,
    "num_sanity_val_steps": _AtLeastMinusOne | None,
    "accumulate_grad_batches": PositiveInt,
    "check_val_every_n_epoch": PositiveInt | None,
    "num_nodes": PositiveInt,
    "limit_train_batches": _Batches,
    "limit_val_batches": _Batches,
    "limit_test_batches": _Batches,
    "limit_predict_batches": _Batches,
    "overfit_batches": _Batches,
    "val_check_interval": PositiveInt | Annotated[float, Domain(above=0, most=1)] | timedelta | dict[str, int] | None,
}
"""Options of Trainer with other limits than that a number must not be negative, and the annotations that say them."""

LIMITS = {
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
"""Of each command the option of Trainer whose 0 leaves it nothing to do, which Lightning then does without a word."""

DEVICES = re.compile(r"auto|-1|[1-9]\d{0,3}|(\d{1,4},)+\d{0,4}")
"""The pattern of ``devices`` as text: auto, -1, a number of devices, or a list of indices."""

TIME = re.compile(r"\d{1,6}:\d{1,2}:\d{1,2}:\d{1,2}")
"""The pattern of a duration as text: days, hours, minutes and seconds."""


UNITS = ("weeks", "days", "hours", "minutes", "seconds")
"""Keys of a duration that is given as a mapping."""

BARE = ("lightning.Callback", "lightning.pytorch.callbacks.Callback", "lightning.pytorch.callbacks.callback.Callback")
"""The base of all callbacks, by its import paths."""


def check_config(config: Namespace) -> None:
    """Refuse values that no option can have, and functions in place of classes.

    Args:
        config: the parsed config, of a tool or of one command of LightningCLI.

    Raises:
        InputError: a number is NaN, infinite or of more than 64 bits, an argument of other people's class is not what
            its annotation says, an option of the trainer or the seed of the run is out of range, no batch is left to
            the command, or a function is named where a class should be; the message names the key.
    """
    command = config.get("subcommand")
    content = config[command] if command else config
    check_numbers(content)
    _check_texts(content)
    for key, part in _parts(content):
        _check_foreign(key, part)
        if part["class_path"] in BARE:  # what jsonargparse falls back to at an option that a callback does not take
            raise InputError(f"{key}: a bare Callback does nothing; name one that does, with values its options take")
    if command:
        _check_run(content)
        limit = LIMITS.get(command, "")
        value = (content.get("trainer") or Namespace()).get(limit)
        if value == 0:
            verb = "train on" if command == "fit" else command
            raise InputError(
                f"trainer.{limit}={value} leaves nothing to {verb}: give a number of batches, or leave it out"
            )
    _refuse_functions(config)


def _check_run(content: Namespace) -> None:
    """Refuse options of the trainer, and a seed of the run, that are out of range.

    Raises:
        InputError: there is one; the message names the key.
    """
    seed = content.get("seed_everything")
    why = complaint(seed, Seed | bool | None)
    if why:
        raise InputError(f"seed_everything={shown(seed)} must {why}")
    for name, value in vars(content.get("trainer") or Namespace()).items():
        why = trainer_complaint(name, value)
        if why:
            raise InputError(f"trainer.{name}={shown(value)} must {why}")


def check_numbers(content: Any) -> None:
    """Refuse numbers anywhere in a config that are NaN, infinite or of more than 64 bits.

    Raises:
        InputError: there is such a number; the message names its key.
    """
    for key, value in _numbers(content):
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"{key}={value} must be a finite number")
        if abs(value) > LARGEST_INTEGER and isinstance(value, int):
            raise InputError(f"{key}={shown(value)} must be an integer of at most 64 bits")


def named_paths(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each import path that a parsed config names, and its object (None if there is none)."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Namespace):
            waiting += list(vars(value).values())
            path = value.get("class_path")
            if isinstance(path, str) and "." in path:
                yield path, pydoc.locate(path)
        elif isinstance(value, Mapping):
            waiting += list(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting += list(value)
        elif callable(value) and not isinstance(value, (enum.Enum, os.PathLike)):
            yield f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}", value


def trainer_complaint(name: str, value: Any) -> str | None:
    """Return what ``value`` must do to be the option ``name`` of Trainer, e.g. ``be at least 1``; None if it fits."""
    if name == "devices":
        return _of_devices(value)
    if name == "default_root_dir" and isinstance(value, str) and not value.strip():
        return "name a folder (the working folder is .)"
    if name in ("max_time", "val_check_interval") and isinstance(value, str):
        return None if TIME.fullmatch(value) else "be a time such as 00:12:00:00, days to seconds"
    if name in ("max_time", "val_check_interval") and isinstance(value, dict):
        stray = [key for key in value if key not in UNITS]
        return f"have keys among {', '.join(UNITS)}" if stray else complaint(value, dict[str, int], NOT_NEGATIVE)
    kind = TRAINER.get(name, _annotations().get(name, Any))
    if isinstance(value, float) and name in TRAINER and value > 1 and value.is_integer():
        value = int(value)  # as Lightning reads a number of batches
    return complaint(value, kind, NOT_NEGATIVE)


def _refuse_functions(parsed: Any) -> None:
    """Refuse functions where a config should name a class: they would be called in place of a constructor.

    Raises:
        InputError: the config names a function.
    """
    for name, named in named_paths(parsed):
        if not isinstance(named, type):
            raise InputError(f"{name} is no class; give a class by its name or its dotted path")


def _check_foreign(key: str, part: Namespace) -> None:
    """Refuse arguments that do not fit the annotations of another library's class; jsonargparse misses some.

    Constructors of the zoo's own classes check their arguments themselves.

    Raises:
        InputError: an argument does not fit; the message names its key.
    """
    cls = pydoc.locate(part["class_path"])
    if not isinstance(cls, type) or cls.__module__.partition(".")[0] in OWN:
        return
    constructor = inspect.getattr_static(cls, "__init__")
    try:
        kinds = get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):  # the annotation names a class that is imported for type checkers only
        return
    defaults = {name: parameter.default for name, parameter in inspect.signature(constructor).parameters.items()}
    for name, value in vars(part.get("init_args") or Namespace()).items():
        value = {} if value == Namespace() else value
        default = defaults.get(name)
        missing = value is None and default is inspect.Parameter.empty  # comes from the data, or is asked for later
        plain = not isinstance(value, Namespace) and name in kinds and value is not default and not missing
        why = complaint(value, kinds[name]) if plain else None
        if why:
            raise InputError(f"{key}.{name}={shown(value)} must {why}")


def _of_devices(value: Any) -> str | None:
    if isinstance(value, str):
        fits = bool(DEVICES.fullmatch(value))
    elif isinstance(value, list):
        fits = len(set(value)) == len(value) > 0 and complaint(value, list[int], NOT_NEGATIVE) is None
    else:
        fits = value == -1 or complaint(value, _Devices) is None
    return (
        None if fits else "be auto, -1 (all GPUs), a number of devices (1 to 1024) or a list of different GPUs by index"
    )


@functools.cache
def _annotations() -> dict[str, Any]:
    from lightning import Trainer

    return get_type_hints(Trainer.__init__)


def _check_texts(content: Any) -> None:
    for key, value in _all(content):
        if isinstance(value, str) and "\0" in value:
            raise InputError(f"{key}={shown(value)} must be text without a null character")


def _numbers(content: Any) -> Iterator[tuple[str, float]]:
    """Yield the key and the value of each number in ``content``; keys are written as on the command line."""
    for key, value in _all(content):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, value


def _parts(content: Any) -> Iterator[tuple[str, Namespace]]:
    """Yield the key and the part of each part of ``content`` that names a class."""
    for key, value in _all(content):
        if isinstance(value, Namespace) and isinstance(value.get("class_path"), str):
            yield key, value


def _all(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    yield key, content
    pairs: Any = ()
    if isinstance(content, (Namespace, dict)):
        pairs = (vars(content) if isinstance(content, Namespace) else content).items()
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    for name, value in pairs:
        yield from _all(value, key if name == "init_args" else f"{key}.{name}".lstrip("."))
