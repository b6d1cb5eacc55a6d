"""Ends a command on bad input with one line on stderr and exit code 2, and rewords the messages of its parser.

Every pattern of jsonargparse's wording stands in one of the tables below, beside the line that the user gets instead.
``tests/cli/test_errors.py`` makes the parser raise each of them.
"""

import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from attention_zoo.errors import MANY, unknown
from attention_zoo.sayings import one_line

DEBUG = "JSONARGPARSE_DEBUG"
"""Environment variable whose value ``true`` makes errors keep their traceback. jsonargparse reads it too."""

BAD_INPUT = 2
"""The exit code of every command that was given bad input."""

PATIENCE = 5.0
"""Seconds that a process waits for another one of the same run to report the error first."""


@dataclass(frozen=True)
class Asked:
    """The key that a parser was given when it refused.

    Attributes:
        key: the last part of the key.
        beside: a function from a key to the keys that exist beside it.
    """

    key: str
    beside: Callable[[str], list[str]] = lambda key: []


@dataclass(frozen=True)
class Refused:
    """A message of jsonargparse, of up to fifty lines, with the line that the user gets.

    Attributes:
        pattern: a pattern that is found somewhere in the message.
        line: a function that makes the line for the user from the match of the pattern and the key.
    """

    pattern: re.Pattern[str]
    line: Callable[[re.Match[str], Asked], str]


VALUES = (
    Refused(
        re.compile(r"Expected a dot import path string: (\S+)"), lambda match, asked: unknown_class(match[1], asked.key)
    ),
    Refused(
        re.compile("Dict must include a class_path"),
        lambda match, asked: f"name the class before its options; {choices(asked.key)}",
    ),
    Refused(re.compile(r"Unexpected import path format: (\S+)"), lambda match, asked: f"no such file: {match[1]}"),
    Refused(
        re.compile(r"expects a function or a callable class: (.*?)\.*(?: Got value.*)?$", re.MULTILINE),
        lambda match, asked: f"{match[1]}; {choices(asked.key)}",
    ),
    Refused(
        re.compile(
            r"Multiple subclasses with name (\S+)\. Give the full class path to avoid ambiguity: (.*?)\.?$",
            re.MULTILINE,
        ),
        lambda match, asked: f"{match[1]!r} is the name of several classes: {match[2]}; give a dotted path",
    ),
)
"""Messages about the value of a key; the first that fits counts."""

KEYS = (
    Refused(
        re.compile(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'"),
        lambda match, asked: unknown_key(match[1] or match[2], asked.beside(match[1] or match[2])),
    ),
    Refused(
        re.compile(r"^unrecognized arguments: -+([^\s=]+)"),
        lambda match, asked: unknown_key(match[1], asked.beside(match[1])),
    ),
    Refused(
        re.compile(r"^unrecognized arguments: (\S+)"),
        lambda match, asked: f"stray argument {match[1]!r}; options start with --",
    ),
    Refused(re.compile(r"^the following arguments are required: (.*)"), lambda match, asked: missing(match[1])),
    Refused(
        re.compile(r"^argument \S+: expected one argument"),
        lambda match, asked: (
            f"{match[0]}; a value that begins with a minus is given as --KEY=VALUE, help on a class as --KEY.help CLASS"
        ),
    ),
)
"""Messages about a key itself, which does not exist or is missing; the first that fits counts."""

KEY = re.compile(r'^Parser key "([^"]+)": *')
"""Pattern of jsonargparse: the key that a message is about."""

VALUE = re.compile(r"(?:Got value|Given value): (.*)")
"""Pattern of jsonargparse: the value that was given."""

MAPPED = re.compile(
    r"\s*Does not validate against any of the Union subtypes\s+Subtypes: \[dict\[.*?"
    r"Problem with given class_path '(?:\S*\.)?(\w+)'",
    re.DOTALL,
)
"""Pattern of jsonargparse: the class of the value that was refused in a mapping, whose own key is not told."""

NESTED = re.compile(r"^NestedArg\(key='.*?', val='(.*)'\)$")
"""Pattern of jsonargparse: the value that was given to an option of an option."""

ITEM = re.compile(r"^\s*- (.+)$", re.MULTILINE)
"""Pattern of jsonargparse: the reason why one member of a union refused the value."""

EXPECTED = re.compile(r"Expected an? (?!path but)(.+?)(?:\. Got value.*)?$", re.MULTILINE)
"""Pattern of jsonargparse: the type that was wanted."""

DENIED = re.compile(r"Importing '([^']+)' is not allowed")
"""Pattern of jsonargparse: an import path is refused."""

UNSAID = (
    r".*isinstance\(treespec, LeafSpec\)",
    "Checkpoint directory .* exists and is not empty",
    "You're resuming from a checkpoint that ended before the epoch ended",
)
"""Warnings that are hidden: one about an old call that Lightning makes, one about a run folder that is not empty, and
one about data that begin an epoch again, which ours do not."""

TIP = re.compile("Tip:")
"""Pattern of Lightning: a tip about the services of its maker."""


def debugging() -> bool:
    """Return whether the user asked for tracebacks, by the variable `DEBUG`."""
    return os.environ.get(DEBUG, "").lower() == "true"


def fail(message: str) -> NoReturn:
    """Write one line to stderr and exit with code 2.

    Processes of one run mostly fail alike, and the first reports for all: it, or their launcher, ends the others. The
    others wait for that end, and report only if it does not come.
    """
    if rank() > 0:
        time.sleep(PATIENCE)
    sys.stderr.write(f"error: {one_line(message)}\n")
    leave()


def leave() -> NoReturn:
    """End with the exit code of bad input.

    If processes are connected, torch's clean-up is skipped: its threads still wait for the other processes, which may
    be gone, and the interpreter's end would abort them, and with them this process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        os._exit(BAD_INPUT)
    sys.exit(BAD_INPUT)


def failed_elsewhere(processes: list[subprocess.Popen]) -> bool:
    """Return whether one of the processes that this one launched ended with bad input; it waits a moment for that."""
    deadline = time.monotonic() + PATIENCE / 2
    while processes and time.monotonic() < deadline:
        if any(process.poll() == BAD_INPUT for process in processes):
            return True
        time.sleep(0.1)
    return False


def rank() -> int:
    """Return the number of this process in the run, from 0, which launchers set in the environment."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0)


def reason(message: str, key: str) -> str:
    """Return why ``key`` was refused, from the message of the parser that saw it last."""
    line = _first(VALUES, message, Asked(key))
    if line is not None:
        return line
    match = VALUE.search(message)
    value = NESTED.sub(r"\1", match[1]) if match else ""
    items = [item for item in ITEM.findall(message) if not item.startswith("Expected a")]
    items.sort(key=lambda item: item.endswith(":"))  # one that stops at a colon says less than any other
    expected = list(dict.fromkeys(map(_plain_type, EXPECTED.findall(message))))
    if expected and not items:
        hint = "; a list is written as [1,2,3]" if {"tuple", "list"} & set(expected) else ""
        return f"expected {' or '.join(expected)}, got {value!r}{hint}"
    return items[0] if items else KEY.sub("", message)


def about_keys(message: str, beside: Callable[[str], list[str]]) -> str:
    """Return the line for a message about keys that do not exist or are missing, else the message itself.

    Args:
        message: the message of jsonargparse.
        beside: a function from a key to the keys that exist beside it.
    """
    return _first(KEYS, message, Asked("", beside)) or message


def _first(table: Iterable[Refused], message: str, asked: Asked) -> str | None:
    for row in table:
        match = row.pattern.search(message)
        if match is not None:
            return row.line(match, asked)
    return None


def missing(names: str) -> str:
    """Return the line for required keys that are missing; ``names`` has commas between them."""
    keys = [key.partition(".")[2] or key for key in names.split(", ")]
    return f"missing: give {' and '.join('--' + key for key in sorted(keys))}, or a --config that has them"


NamesOf = Callable[[], Iterable[str]]


def _subclasses(base: type) -> Iterator[type]:
    cls: type
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def class_names(base: type) -> list[str]:
    """Return the sorted names of the subclasses of ``base`` that are in memory, public and not abstract."""
    classes = [cls for cls in _subclasses(base) if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]
    return sorted({cls.__name__ for cls in classes})


@cache
def kinds() -> dict[str, tuple[str, NamesOf]]:
    """Return what to call the class at a key, and a function that lists its choices, by the last part of the key."""
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

    import tasks
    from attention_zoo import list_mixers
    from attention_zoo.attacks import Attack
    from attention_zoo.mixers.registry import self_mixers

    def of(base: type) -> NamesOf:
        return lambda: class_names(base)

    return {
        "mixer": ("mixer", lambda: list(self_mixers())),
        "mixers": ("mixer", lambda: list(self_mixers())),
        "layer_mixers": ("mixer", lambda: list(self_mixers())),
        "variants": ("mixer", lambda: list(self_mixers())),
        "attacks": ("attack", of(Attack)),
        "attack": ("attack", of(Attack)),
        "interaction": ("interaction", lambda: list_mixers("cross")),
        "model": ("task", of(tasks.Task)),
        "data": ("data", of(L.LightningDataModule)),
        "optimizer": ("optimizer", of(torch.optim.Optimizer)),
        "scheduler": ("scheduler", of(torch.optim.lr_scheduler.LRScheduler)),
        "callbacks": ("callback", of(Callback)),
        "logger": ("logger", of(Logger)),
    }


def unknown_key(key: str, choices: Iterable[str]) -> str:
    """Return the line for a key that does not exist; ``choices`` are the keys that do."""
    choices = set(choices)
    if not choices:
        return f"unknown option {key!r}; it has none"
    return str(unknown("option", key, choices, "--help lists what there is"))


def unknown_class(name: str, key: str) -> str:
    """Return the line for a class that does not exist, with those that could stand at ``key``."""
    kind, names = kinds().get(key, ("class", None))
    if names is None:
        return f"unknown class {name!r}"
    choices = list(names())
    path = " (or a dotted class path)" if len(choices) <= MANY else ""
    return f"{unknown(kind, name, choices)}{path}"


def choices(key: str) -> str:
    """Return words on the classes that could stand at ``key``."""
    kind, names = kinds().get(key, ("class", None))
    return f"choose from: {', '.join(sorted(names())[:MANY])}" if names else f"give the {kind} by its path"


def _plain_type(name: str) -> str:
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", name)
    if literal:
        return literal[1].replace(", ", " or ")
    name = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", name)
    return name.replace("NoneType", "null").replace("typing.", "")
