"""Prepares the command line before it is parsed.

For a training command it finds the checkpoint that is named, on whose config the command then builds. For a tool it
turns forms that shells like, ``--mixers A B``, ``--ckpt_path A --ckpt_path B``, ``--overwrite``, into those that the
parser takes.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from attention_zoo.errors import InputError
from attention_zoo.runs.files import parse_yaml, read_text
from attention_zoo.runs.shipped import is_text, no_config

if TYPE_CHECKING:
    from attention_zoo.runs.checkpoint import Checkpoint

FROM_DATA = ("num_classes", "image_size", "things")
"""Arguments of the task that are taken from the data and cannot be given."""

YES, NO = ("True", "true", "yes"), ("False", "false", "no")
"""Words by which YAML and the command line turn a switch on, and off."""


NEGATIVE = re.compile(r"-\.?\d|-\.?(inf|nan)$", re.IGNORECASE)
"""How negative numbers begin, which are values and no options."""


@dataclass(frozen=True)
class Prepared:
    """A command line that names its checkpoint as a file, so that all processes read the same; and that checkpoint."""

    argv: list[str]
    checkpoint: "Checkpoint | None"


def prepare(argv: Sequence[str]) -> Prepared:
    """Read the configs and the checkpoint that ``argv`` names, and return the prepared arguments.

    Raises:
        InputError: one of them cannot be read, an argument of the task is given that comes from the data, or nothing
            says what model the checkpoint is of.
    """
    from attention_zoo.runs.folders import KEYWORDS, find_checkpoint  # imports torch

    configs = [read_config(value) for value in values_of(argv, "--config", "-c")]
    for name in FROM_DATA:  # a link would overwrite them without a word
        if _last(argv, configs, "model", name) or _last(argv, configs, "model", "init_args", name):
            raise InputError(f"model.{name} comes from the data; leave it out")
    wanted = _last(argv, configs, "ckpt_path")
    if wanted is None:
        return Prepared(list(argv), None)
    folder = _last(argv, configs, "trainer", "default_root_dir")
    trust = _last(argv, configs, "trust_checkpoint") in YES
    weights_only = _last(argv, configs, "weights_only") not in NO
    checkpoint = find_checkpoint(wanted, Path(folder) if folder else None, trust=trust, weights_only=weights_only)
    if checkpoint.config is None and not (configs or values_of(argv, "--model")):
        raise InputError(f"{checkpoint.path} carries no config; give the one of its run with --config")
    resolved = ["--ckpt_path", str(checkpoint.path)] if wanted in KEYWORDS or Path(wanted).is_dir() else []
    return Prepared([*argv, *resolved], checkpoint)


def values_of(argv: Sequence[str], *names: str) -> list[str]:
    """Return all values of an option, given as ``--option value`` or ``--option=value`` under any of ``names``."""
    values = []
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in names and equals:
            values.append(value)
        elif argument in names and position + 1 < len(argv):
            values.append(argv[position + 1])
    return values


def read_config(value: str) -> dict[str, Any]:
    """Return the content of a ``--config``: a YAML file, or YAML itself.

    Raises:
        InputError: the file does not exist, is no YAML, or holds no keys.
    """
    text = is_text(value)
    if not text and not Path(value).is_file():
        raise InputError(f"config {value} is a folder") if Path(value).is_dir() else no_config(value)
    name = f"config {'on the command line' if text else value}"
    content = parse_yaml(value if text else read_text(value), name)
    if not isinstance(content, dict):
        raise InputError(f"{name} holds no keys (such as model, data, trainer)")
    return content


def _last(argv: Sequence[str], configs: list[dict[str, Any]], *key: str) -> str | None:
    """Return the value of a key that counts: the last on the command line, else that of the last config with it."""
    values: list[Any] = []
    for config in configs:
        content: Any = config
        for part in key:
            content = content.get(part) if isinstance(content, dict) else None
        values += [content] if content is not None else []
    values += values_of(argv, "--" + ".".join(key))
    return str(values[-1]) if values and values[-1] != "null" else None


def as_config(tool: Callable[..., Any], argv: Sequence[str]) -> list[str]:
    """Return ``argv`` in the form that the parser takes: lists in brackets, switches with a value.

    An option that is a list takes all words up to the next option, and may be given again. Where the tool's first
    argument is a list, it takes the words that no option takes. A switch without a value is ``true``. A ``--config``
    resets what stands before it, and so comes first; but no words leave those of the config.
    """
    parameters = inspect.signature(tool).parameters.values()
    lists = {f"--{parameter.name}" for parameter in parameters if _is_list(parameter.annotation)}
    switches = {f"--{parameter.name}" for parameter in parameters if parameter.annotation is bool}
    first = next((parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY), None)
    first = first if f"--{first}" in lists else None
    collected: dict[str, list[str]] = {}
    configs: list[str] = []
    rest: list[str] = []
    others = rest
    target = first  # the option that takes the next words; None: the parser decides
    for argument, after in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name in lists:
            target = name
            collected.setdefault(name, []).extend([value] if equals else [])
        elif argument.startswith("-") and not NEGATIVE.match(argument):
            bare = argument in switches and after not in ("true", "false")
            others = configs if name == "--config" else rest
            others += [argument, "true"] if bare else [argument]
            target = first if equals or bare else None
        elif target is None:
            others.append(argument)
            target = first
        else:
            collected.setdefault(target, []).append(argument)
    words = [] if first is None else [_in_brackets(collected.pop(first, []))]
    leading = [*configs, *words] if words != ["[]"] else [*words, *configs]
    return [*leading, *(word for name in collected for word in (name, _in_brackets(collected[name]))), *rest]


def _is_list(annotation: Any) -> bool:
    return list in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def _in_brackets(words: list[str]) -> str:
    """Return a list in the parser's form; a single word that is in brackets already stays as it is."""
    return words[0] if len(words) == 1 and words[0].startswith("[") else json.dumps(words)
