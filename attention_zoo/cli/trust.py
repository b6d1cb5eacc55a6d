"""What a config may have run: classes alone, and of an untrusted checkpoint only those of known packages."""

import enum
import os
import pydoc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse._common
import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings

from attention_zoo.cli.parser import Refusal, ShortErrors, check_yaml
from attention_zoo.errors import InputError
from attention_zoo.runs.trust import PACKAGES, foreign, is_allowed

DENIED = re.compile(r"Importing '([^']+)' is not allowed")
"""How jsonargparse says that an import path is refused."""


def parse_strangers(parser: ShortErrors, config: dict[str, Any], path: Path) -> Namespace:
    """Parse the config of an untrusted checkpoint, where nothing outside `PACKAGES` is imported, and check its classes.

    Args:
        parser: one that raises its errors.
        config: what is taken of the checkpoint's config.
        path: of the checkpoint.

    Raises:
        InputError: the config names anything but allowed classes, or does not fit the parser.
    """
    try:
        with _packages_only():
            parsed = parser.parse_object(config)
    except Refusal as refusal:
        denied = next((found[1] for text in _causes(refusal) if (found := DENIED.search(text))), None)
        if denied is not None:
            raise foreign(path, denied) from refusal
        raise InputError(f"checkpoint {path}: {refusal}") from refusal
    for name, named in _named(parsed):
        if not is_allowed(named):
            raise foreign(path, name)
    return parsed


def refuse_functions(parsed: Any) -> None:
    """Refuse functions where a config should name a class: they would be called in place of a constructor.

    Raises:
        InputError: there is one.
    """
    for name, named in _named(parsed):
        if not isinstance(named, type):
            raise InputError(f"{name} is no class; give a class by its name or its dotted path")


def configure_parsing() -> None:
    """Have jsonargparse take less on trust.

    Import paths that run code as such are refused, no object is built where any value is taken, and YAML, of configs
    and of values on the command line, is refused where `attention_zoo.runs.files.parse_yaml` would: alias bombs,
    keys that stand twice, deep nesting.
    """
    set_parsing_settings(import_path_denylist=[], instantiate_subclass_spec_in_any=False)
    stock = get_loader("yaml")
    if getattr(stock, "checked", False):
        return

    def load(text: str) -> Any:
        check_yaml(text)
        return stock(text)

    load.checked = True
    set_loader("yaml", load, (yaml.YAMLError,))


@contextmanager
def _packages_only() -> Iterator[None]:
    """While the block runs, values may only name import paths of `PACKAGES`, also as what they re-export."""
    settings = jsonargparse._common.parsing_settings  # what is set cannot be unset by the function that sets it
    before = dict(settings)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(PACKAGES))
    try:
        yield
    finally:
        settings.update(before)


def _causes(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """What a parsed config names by import path, with that path: the object, None where there is none."""
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
