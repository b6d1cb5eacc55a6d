"""Every option there is, found in the signatures: who adds one need not think of the fuzz."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import lightning as L
import torch
from jsonargparse._parameter_resolvers import get_signature_parameters
from lightning.pytorch import callbacks

import datamodules  # noqa: F401  its classes can be found
import tasks
from attention_zoo import list_mixers
from attention_zoo.attacks import Attack
from attention_zoo.cli.commands import tool
from attention_zoo.cli.main import TOOLS
from attention_zoo.config_checks import TRAINER
from attention_zoo.mixers.registry import mixer_class
from datamodules.loading import DataModule

OWN = ("attention_zoo", "tasks", "datamodules")
MANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Option:
    """One argument of a constructor or tool."""

    owner: Any
    name: str
    kind: Any
    required: bool
    least: float = 0
    """Of a number whose annotation names no domain."""

    def __str__(self):
        return f"{self.owner.__name__}.{self.name}"


def subclasses(base: type) -> Iterator[type]:
    """Ours that can be built."""
    for cls in base.__subclasses__():
        if cls.__module__.partition(".")[0] in OWN and not cls.__name__.startswith("_"):
            yield from subclasses(cls)
            if not inspect.isabstract(cls):
                yield cls


@functools.cache
def options_of(owner: Any) -> list[Option]:
    """Arguments of a function; of a class, those that its bases take for it too."""
    if not inspect.isclass(owner):
        return list(_named(owner, owner).values())
    if owner.__module__.partition(".")[0] not in OWN:
        return [
            Option(owner, parameter.name, parameter.annotation, parameter.default is inspect.Parameter.empty, -math.inf)
            for parameter in get_signature_parameters(owner, "__init__")
        ]
    found: dict[str, Option] = {}
    for base in reversed([base for base in owner.__mro__ if _own_init(base)]):
        found |= _named(vars(base)["__init__"], owner)
    if dataclasses.is_dataclass(owner):
        return list(found.values())
    taken = [parameter.name for parameter in get_signature_parameters(owner, "__init__")]  # bases may be given some
    return [found[name] for name in taken]


def _named(function: Any, owner: Any) -> dict[str, Option]:
    hints = get_type_hints(function, include_extras=True)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self" and p.kind not in MANY]
    return {p.name: Option(owner, p.name, hints.get(p.name, Any), p.default is p.empty) for p in parameters}


def _own_init(cls: type) -> bool:
    return "__init__" in vars(cls) and cls.__module__.partition(".")[0] in OWN


def _inside(kind: Any) -> Iterator[type]:
    """Data classes of options that an annotation names."""
    if dataclasses.is_dataclass(kind) and inspect.isclass(kind):
        yield kind
    for part in get_args(kind):
        yield from _inside(part)


def groups() -> dict[str, list[Any]]:
    """By what they are: the classes and tools whose options are fuzzed."""
    found = {
        "mixer": [mixer_class(name) for name in list_mixers() if mixer_class(name).__module__.partition(".")[0] in OWN],
        "attack": sorted(set(subclasses(Attack)), key=str),
        "model": sorted(set(subclasses(tasks.Task)), key=str),
        "data": sorted(set(subclasses(DataModule)), key=str),
        "tool": [tool(name) for name in TOOLS],
    }
    owners = [owner for group in found.values() for owner in group]
    nested = {part for owner in owners for option in options_of(owner) for part in _inside(option.kind)}
    found["part"] = sorted(nested, key=str)
    return found


def trainer_options() -> list[Option]:
    """Arguments of Lightning's trainer."""
    found = [dataclasses.replace(option, least=0) for option in options_of(L.Trainer)]
    return [dataclasses.replace(option, kind=TRAINER.get(option.name, option.kind)) for option in found]


def foreign() -> dict[str, list[type]]:
    """Classes of others that configs name, by where."""
    optim, schedules = torch.optim, torch.optim.lr_scheduler
    return {
        "model.optimizer": [optim.AdamW, optim.SGD],
        "model.scheduler": [schedules.StepLR, schedules.CosineAnnealingLR, schedules.ExponentialLR],
        "trainer.callbacks+": [callbacks.EarlyStopping, callbacks.ModelCheckpoint],
    }
