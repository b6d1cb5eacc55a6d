"""Finds the configs that come with the project, by their names, from any working folder.

The repository has them in ``configs/``; a wheel has a copy in ``attention_zoo/configs/``.
"""

import difflib
import os
from functools import cache
from importlib import resources
from pathlib import Path

from attention_zoo.errors import InputError

FOLDER = "configs"
"""The name of the folder of configs; a name of a config may begin with it, as paths in the repository do."""

NEAREST = 3
"""Number of names that the message about an unknown one shows."""


@cache
def shipped_folder() -> Path:
    """Return the folder of the configs that come with the project."""
    package = Path(str(resources.files("attention_zoo")))
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER  # the repository's own


@cache
def shipped_configs() -> tuple[str, ...]:
    """Return the sorted names of the configs that come with the project, such as ``classification/digits.yaml``."""
    folder = shipped_folder()
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")))


def find_config(value: str) -> str:
    """Return the path of the config that ``value`` names.

    Args:
        value: a path, or a name of `shipped_configs`, perhaps after ``configs/``. What is at that path wins.

    Returns:
        The path; ``value`` itself if there is nothing of that name, or where it is YAML.
    """
    if is_text(value) or os.path.exists(value):  # False too for what no file can be called
        return value
    name = value.removeprefix(f"{FOLDER}/")
    return str(shipped_folder() / name) if name in shipped_configs() else value


def is_text(value: str) -> bool:
    """Return whether a ``--config`` is YAML itself, rather than the name of a file."""
    return "\n" in value or ": " in value


def no_config(value: str, *, where: str = "config") -> InputError:
    """Return the error for a config that does not exist; it names those of the project whose names are nearest.

    Args:
        value: the path or name that was given.
        where: words before it, on what names the config.
    """
    return InputError(f"{where} {value} does not exist; {_nearest(value)}")


def _nearest(value: str) -> str:
    """Return words on the shipped configs with names near to a path: the whole name, or its last part."""
    names = {name: name for name in shipped_configs()}
    for name in shipped_configs():
        names.setdefault(name.rpartition("/")[2], name)
    wanted = value.removeprefix(f"{FOLDER}/")
    found = [match for each in (wanted, Path(wanted).stem + ".yaml") for match in _matches(each, names)]
    near = list(dict.fromkeys(names[match] for match in found))[:NEAREST]
    if near:
        return f"did you mean {' or '.join(near)}? (of the configs that come with the project)"
    kinds = sorted({name.partition("/")[0] for name in shipped_configs()})
    return f"the project brings configs of {', '.join(kinds)}, such as {shipped_configs()[0]}"


def _matches(name: str, names: dict[str, str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=NEAREST)
