"""Resolves configs that build on others: ``base: other.yaml``, or a list of files, at the top of a config.

A base acts as if it had been given with a ``--config`` of its own before the config that names it, so that the
config wins over it. Paths are relative to the config's folder, and a base may have bases. Configs that come with the
project go by their names; see `attention_zoo.runs.shipped`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from attention_zoo.errors import InputError
from attention_zoo.runs.files import parse_yaml, read_text
from attention_zoo.runs.shipped import find_config, is_text, no_config

BASE = "base"
"""The key of a config that names the files that it builds on."""

OPTIONS = ("--config", "-c")
"""Options of the command line that take a config."""


def with_bases(argv: Sequence[str]) -> list[str]:
    """Return a command line whose configs are paths, or YAML, and name no bases.

    Each base stands before its config, with an option of its own.

    A config that cannot be read stays as it is, for the parser to refuse.

    Raises:
        InputError: a base cannot be read, or leads back to the config that names it.
    """
    words: list[str] = []
    waiting: str | None = None  # the option whose value comes next
    for word in argv:
        name, equals, value = word.partition("=")
        if waiting is not None:
            words += _options(waiting, word)
            waiting = None
        elif word in OPTIONS:
            waiting = word
        elif equals and name in OPTIONS:
            words += _options(name, value)
        else:
            words.append(word)
    return words if waiting is None else [*words, waiting]


def _options(option: str, value: str) -> list[str]:
    return [word for part in parts(value) for word in (option, part)]


def parts(value: str) -> list[str]:
    """Return the configs without bases that a config, a file or YAML itself, is made of; later ones win.

    Raises:
        InputError: a base cannot be read, or leads back to the config that names it.
    """
    text = is_text(value)
    value = find_config(value)
    try:
        content = parse_yaml(value if text else read_text(value), value)
    except InputError:
        return [value]
    here = Path() if text else Path(value)
    return _parts(value, content, here if text else here.parent, () if text else (here.resolve(),))


def _parts(value: str, content: Any, folder: Path, above: tuple[Path, ...]) -> list[str]:
    """Return the parts of a config whose bases are relative to ``folder``.

    Args:
        value: the config, a path or YAML.
        content: the parsed content of the config.
        folder: the folder of the config.
        above: paths of this config and of those that build on it, so that circles are found.
    """
    if not isinstance(content, dict) or BASE not in content:
        return [value]
    name = f"config {above[-1].name}" if above else "config on the command line"
    bases = content[BASE]
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not bases or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{name}: {BASE} must be a file or a list of files, got {bases!r:.60}")
    of_bases = [part for base in bases for part in _of_base(name, folder / base, base, above)]
    own = {key: each for key, each in content.items() if key != BASE}
    return [*of_bases, yaml.safe_dump(own, sort_keys=False)] if own else of_bases


def _of_base(name: str, path: Path, base: str, above: tuple[Path, ...]) -> list[str]:
    """Return the parts of the base that the config ``name`` names: what is at ``path``, or of the project's configs."""
    if not path.is_file():
        missing, path = path, Path(find_config(base))
        if not path.is_file():
            raise no_config(str(missing), where=f"{name}: its {BASE}")
    if path.resolve() in above:
        raise InputError(f"{name}: its {BASE} {path} leads back to it")
    content = parse_yaml(read_text(path), f"{name}: its {BASE} {path}")
    if not isinstance(content, dict):
        raise InputError(f"{name}: its {BASE} {path} holds no keys (such as model, data, trainer)")
    return _parts(str(path), content, path.parent, (*above, path.resolve()))
