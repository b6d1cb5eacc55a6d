"""jsonargparse's messages, fifty lines at times, in one line that names the key, the value and the choices."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from attention_zoo.errors import MANY, unknown
from attention_zoo.mixers.registry import list_mixers

NamesOf = Callable[[], Iterable[str]]


def _subclasses(base: type) -> Iterator[type]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def class_names(base: type) -> list[str]:
    """Short names of the classes in memory that can be built and are a ``base``."""
    found = [cls for cls in _subclasses(base) if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]
    return sorted({cls.__name__ for cls in found})


@cache
def kinds() -> dict[str, tuple[str, NamesOf]]:
    """For the last part of a key that holds a class: what to call it, and the names to choose from."""
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    import tasks
    from attention_zoo.attacks import Attack

    def of(base: type) -> NamesOf:
        return lambda: class_names(base)

    return {
        "mixer": ("mixer", lambda: list_mixers("self")),
        "mixers": ("mixer", lambda: list_mixers("self")),
        "layer_mixers": ("mixer", lambda: list_mixers("self")),
        "variants": ("mixer", lambda: list_mixers("self")),
        "attacks": ("attack", of(Attack)),
        "interaction": ("interaction", lambda: list_mixers("cross")),
        "model": ("task", of(tasks.Task)),
        "data": ("data", of(L.LightningDataModule)),
        "optimizer": ("optimizer", of(torch.optim.Optimizer)),
        "scheduler": ("scheduler", of(torch.optim.lr_scheduler.LRScheduler)),
        "callbacks": ("callback", of(Callback)),
        "logger": ("logger", of(Logger)),
    }


def unknown_key(key: str, choices: Iterable[str]) -> str:
    """The line for a key that does not exist."""
    choices = set(choices)
    if not choices:
        return f"unknown option {key!r}; it has none"
    return str(unknown("option", key, choices, "--help lists what there is"))


def reason(message: str, key: str) -> str:
    """Why ``key`` was refused, from the message of the parser that saw it last."""
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    value = re.sub(r"^NestedArg\(key='.*?', val='(.*)'\)$", r"\1", value[1]) if value else ""
    named = re.search(r"Expected a dot import path string: (\S+)", message)
    if named:
        return unknown_class(named[1], key)
    if "Dict must include a class_path" in message:
        return f"name the class before its options; {_choices(key)}"
    path = re.search(r"Unexpected import path format: (\S+)", message)
    if path:
        return f"no such file: {path[1]}"
    foreign = re.search(r"expects a function or a callable class: (.*?)\.*(?: Got value.*)?$", message, re.MULTILINE)
    if foreign:
        return f"{foreign[1]}; {_choices(key)}"
    items = re.findall(r"^\s*- (.+)$", message, re.MULTILINE)
    other = [item for item in items if not item.startswith("Expected a")]
    expected = re.findall(r"Expected an? (?!path but)(.+?)(?:\. Got value.*)?$", message, re.MULTILINE)
    expected = list(dict.fromkeys(map(_plain_type, expected)))
    if expected and not other:
        return f"expected {' or '.join(expected)}, got {value!r}"
    return other[0] if other else re.sub(r'^Parser key "[^"]+": *', "", message)


def unknown_class(name: str, key: str) -> str:
    """The line for a class that does not exist, with those that could stand at ``key``."""
    kind, names = kinds().get(key, ("class", None))
    if names is None:
        return f"unknown class {name!r}"
    choices = list(names())
    path = " (or a dotted class path)" if len(choices) <= MANY else ""
    return f"{unknown(kind, name, choices)}{path}"


def _choices(key: str) -> str:
    kind, names = kinds().get(key, ("class", None))
    return f"choose from: {', '.join(sorted(names())[:MANY])}" if names else f"give the {kind} by its path"


def _plain_type(name: str) -> str:
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", name)
    if literal:
        return literal[1].replace(", ", " or ")
    name = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", name)
    return name.replace("NoneType", "null").replace("typing.", "")
