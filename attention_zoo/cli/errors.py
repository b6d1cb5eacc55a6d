"""Ends a command on bad input with one line on stderr and exit code 2, and rewords the messages of other libraries.

Every pattern of another library's wording stands in one of the tables below, beside the line that the user gets
instead. ``tests/cli/test_errors.py`` makes the libraries raise each of them.
"""

import inspect
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from attention_zoo import list_mixers
from attention_zoo.compat import shape_mismatches
from attention_zoo.errors import MANY, InputError, unknown

PROGRAM = "python -m attention_zoo"

DEBUG = "JSONARGPARSE_DEBUG"
"""Environment variable whose value ``true`` makes errors keep their traceback. jsonargparse reads it too."""

BAD_INPUT = 2
"""The exit code of every command that was given bad input."""

RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
"""Module of Lightning that restores the states in a checkpoint (and, in ``dump_...``, writes them)."""

PATIENCE = 5.0
"""Seconds that a process waits for another one of the same run to report the error first."""

MEMORY = "out of memory: a smaller data.batch_size, fewer data.num_workers or a smaller model may help"


@dataclass(frozen=True)
class Saying:
    """An error of another library that is no bug, with the line that the user gets.

    Attributes:
        kinds: classes of the error.
        pattern: a pattern that is found somewhere in its message.
        line: the line for the user; ``{0}`` stands for the first group of the pattern.
    """

    kinds: tuple[type[BaseException], ...]
    pattern: re.Pattern[str]
    line: str


SAYINGS = (
    Saying((MemoryError,), re.compile(""), MEMORY),
    Saying(
        (RuntimeError, OSError),
        re.compile(r"can't allocate memory|[Cc]annot allocate memory|bad_alloc|out of memory|[Nn]ot enough memory"),
        MEMORY,
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)"),
        "a loader process ({0}) was killed, {1}: out of memory? fewer data.num_workers may help",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly"),
        "a loader process ({0}) ended before its work was done: out of memory? fewer data.num_workers may help",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"unable to (?:open|write to|mmap|allocate).*(?:shared memory|torch_\d+|shm)|items of ancdata"),
        "loader processes have no more shared memory or open files: fewer data.num_workers help, or a higher ulimit -n",
    ),
    Saying(
        (RuntimeError, OSError),
        re.compile(r"can't start new thread|Resource temporarily unavailable"),
        "no further thread or process can be started: a limit of the machine (ulimit -u, -v) is reached",
    ),
    Saying(
        (ValueError,),
        re.compile(r"Expected more than 1 value per channel when training, got input size (.*?)\s*$"),
        "a batch normalisation sees one value per channel (size {0}), of which nothing can be learned: train with a "
        "data.batch_size of 2 or more, or on larger images",
    ),
    Saying(
        (OSError, RuntimeError),
        re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing"),
        "no space left on the disk: what was finished is kept; free some, and go on with --ckpt_path last",
    ),
    Saying(
        (TypeError,),
        re.compile(r"`devices` selected with `(\w+)Accelerator` should be"),
        "trainer.devices: of {0} devices give a number above 0",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"Found more than one stateful callback of type `(\w+)`"),
        "trainer.callbacks: two {0} that no checkpoint could tell apart; every run has a ModelCheckpoint of its last "
        "state, so that a further one needs a monitor, or other epochs or steps",
    ),
    Saying(
        (OSError,),
        re.compile("Too many open files"),
        "too many open files: fewer data.num_workers help, or a higher ulimit -n",
    ),
    Saying(
        (UnicodeEncodeError,),
        re.compile(r"codec can't encode .*surrogates not allowed"),
        "the name of a file or folder is not UTF-8; rename it",
    ),
    Saying(
        (RuntimeError,),
        re.compile(
            r"C\+\+ compiler found|Compiler: \S+ is not found|working triton|too old to be supported by the triton"
        ),
        "model.compile true needs a compiler of C++, and on a GPU Triton and one of compute capability 7.0 or more; "
        "without them leave it false",
    ),
    Saying((RuntimeError,), re.compile(r"^(Early stopping conditioned on metric .*)$", re.DOTALL), "{0}"),
)
"""Errors of a running command; the first that fits counts."""


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
        re.compile(r"Expected a dot import path string: (\S+)"), lambda found, asked: unknown_class(found[1], asked.key)
    ),
    Refused(
        re.compile("Dict must include a class_path"),
        lambda found, asked: f"name the class before its options; {choices(asked.key)}",
    ),
    Refused(re.compile(r"Unexpected import path format: (\S+)"), lambda found, asked: f"no such file: {found[1]}"),
    Refused(
        re.compile(r"expects a function or a callable class: (.*?)\.*(?: Got value.*)?$", re.MULTILINE),
        lambda found, asked: f"{found[1]}; {choices(asked.key)}",
    ),
)
"""Messages about the value of a key; the first that fits counts."""

KEYS = (
    Refused(
        re.compile(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'"),
        lambda found, asked: unknown_key(found[1] or found[2], asked.beside(found[1] or found[2])),
    ),
    Refused(
        re.compile(r"^unrecognized arguments: -+([^\s=]+)"),
        lambda found, asked: unknown_key(found[1], asked.beside(found[1])),
    ),
    Refused(
        re.compile(r"^unrecognized arguments: (\S+)"),
        lambda found, asked: f"stray argument {found[1]!r}; options start with --",
    ),
    Refused(re.compile(r"^the following arguments are required: (.*)"), lambda found, asked: missing(found[1])),
)
"""Messages about a key itself, which does not exist or is missing; the first that fits counts."""

KEY = re.compile(r'^Parser key "([^"]+)": *')
"""Pattern of jsonargparse: the key that a message is about."""

VALUE = re.compile(r"(?:Got value|Given value): (.*)")
"""Pattern of jsonargparse: the value that was given."""

NESTED = re.compile(r"^NestedArg\(key='.*?', val='(.*)'\)$")
"""Pattern of jsonargparse: the value that was given to an option of an option."""

ITEM = re.compile(r"^\s*- (.+)$", re.MULTILINE)
"""Pattern of jsonargparse: the reason why one member of a union refused the value."""

EXPECTED = re.compile(r"Expected an? (?!path but)(.+?)(?:\. Got value.*)?$", re.MULTILINE)
"""Pattern of jsonargparse: the type that was wanted."""

DENIED = re.compile(r"Importing '([^']+)' is not allowed")
"""Pattern of jsonargparse: an import path is refused."""

STATE = re.compile(r"Error\(s\) in loading state_dict for (\w+):")
"""Pattern of torch: weights do not fit a model."""

WORKER = re.compile(r"Original Traceback")
"""Pattern of torch: a loader process failed, and its traceback follows."""

UNSAID = (r".*isinstance\(treespec, LeafSpec\)", "Checkpoint directory .* exists and is not empty")
"""Warnings that are hidden: one about an old call that Lightning makes, one about a run folder that is not empty."""

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


def one_line(message: str) -> str:
    """Return ``message`` without line breaks, and without the traceback that a data worker wraps around it."""
    message = message.encode("utf-8", "backslashreplace").decode()
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if WORKER.search(message):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines)


def bad_input(error: BaseException) -> str | None:
    """Return the line that tells the user what was wrong, or None if the error is a bug."""
    if isinstance(error, InputError) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return in_our_words(error)


def in_our_words(error: BaseException) -> str | None:
    """Return the line for another library's error that machine or input caused, by `SAYINGS`; None for all others."""
    for saying in SAYINGS:
        found = saying.pattern.search(str(error)) if isinstance(error, saying.kinds) else None
        if found is not None:
            return saying.line.format(*found.groups())
    return None


STRAY = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '([^']+)'")
"""The pattern of Python's message that a constructor takes no such argument."""


def bad_argument(error: BaseException) -> str | None:
    """Return the line of `bad_input` for an error in building a config's objects, where ValueErrors are the user's."""
    stray = STRAY.search(str(error)) if isinstance(error, TypeError) else None
    if stray is not None:  # a mapping in the config was passed to the constructor as it is
        return f"{stray[1]} has no option {stray[2]!r}"
    return str(error) if isinstance(error, ValueError) else bad_input(error)


def root_cause(error: BaseException) -> BaseException:
    """Return the error that a constructor raised, which jsonargparse wraps in ValueErrors about type unions."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def not_restored(error: BaseException, checkpoint: Path | None) -> str | None:
    """Return the line about a checkpoint whose states Lightning cannot restore; None for an error of other origin."""
    if checkpoint is None:
        return None
    restoring = any(
        frame.f_globals.get("__name__") == RESTORING and "dump" not in frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    said = one_line(str(error))
    return f"checkpoint {checkpoint} cannot be gone on from: {type(error).__name__}: {said}" if restoring else None


def other_model(error: BaseException, checkpoint: Path | None) -> str | None:
    """Return the line about weights that do not fit the model, with a few of their keys; None for any other error."""
    head, *problems = [line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()] or [""]
    model = STATE.fullmatch(head)
    if model is None or not isinstance(error, RuntimeError):
        return None
    shapes = [found for problem in problems for found in shape_mismatches(problem)]
    said = [_first_keys(problem) for problem in problems if not shape_mismatches(problem)]
    said += [f"{key} is {file} in the file, {here} in the model" for key, file, here in shapes[:3]]
    return f"checkpoint {checkpoint} is of another model than this {model[1]}: {'; '.join(said)}"


def _first_keys(problem: str, most: int = 3) -> str:
    head, _, keys = problem.partition(": ")
    names = keys.split(", ")
    return f"{head}: {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")


def rank() -> int:
    """Return the number of this process in the run, from 0, which launchers set in the environment."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0)


def reason(message: str, key: str) -> str:
    """Return why ``key`` was refused, from the message of the parser that saw it last."""
    line = _first(VALUES, message, Asked(key))
    if line is not None:
        return line
    found = VALUE.search(message)
    given = NESTED.sub(r"\1", found[1]) if found else ""
    items = [item for item in ITEM.findall(message) if not item.startswith("Expected a")]
    expected = list(dict.fromkeys(map(_plain_type, EXPECTED.findall(message))))
    if expected and not items:
        return f"expected {' or '.join(expected)}, got {given!r}"
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
        found = row.pattern.search(message)
        if found is not None:
            return row.line(found, asked)
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
    found = [cls for cls in _subclasses(base) if not inspect.isabstract(cls) and not cls.__name__.startswith("_")]
    return sorted({cls.__name__ for cls in found})


@cache
def kinds() -> dict[str, tuple[str, NamesOf]]:
    """Return what to call the class at a key, and a function that lists its choices, by the last part of the key."""
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
