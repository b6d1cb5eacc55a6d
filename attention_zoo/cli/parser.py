"""Parsers whose errors are one line, and checks that a config names only classes that it may."""

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_dumper, set_loader, set_parsing_settings

from attention_zoo.cli.arguments import read_config, values_of
from attention_zoo.cli.compat import importing_only, keys_of
from attention_zoo.cli.errors import DENIED, KEY, MAPPED, about_keys, debugging, reason
from attention_zoo.config_checks import check_config, check_numbers, named_paths
from attention_zoo.errors import InputError
from attention_zoo.runs.files import check_value, check_yaml
from attention_zoo.runs.trust import PACKAGES, foreign, is_allowed

if TYPE_CHECKING:
    from attention_zoo.runs.checkpoint import Checkpoint


class Refusal(argparse.ArgumentError):
    """The error of an inner parser, that of one class: a key relative to the class, and why it was refused."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(None, f"{key}: {why}" if key else why)
        self.key, self.why = key, why


class ZooParser(ArgumentParser):
    """jsonargparse's parser, with errors of one line that name the key and the choices.

    Each class in a config is parsed by a parser of its own. The innermost one knows best what was wrong and which
    options there are; those around it add the key that leads there.
    """

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse as jsonargparse does, but refuse values that no option can have, and functions in place of classes.

        Args:
            args: the words of the command line.
            *more: see jsonargparse.
            **kwargs: see jsonargparse.

        Raises:
            InputError: the words do not fit the parser.
        """
        words = list(args or ())
        name = "argument"
        for word in words:
            option, equals, value = word.partition("=")
            name = option.lstrip("-") if option.startswith("--") else name
            check_value(value if equals else word, name)
        try:
            config = super().parse_args(words, *more, **kwargs)
            check_config(config)
        except InputError:
            raise
        except (ValueError, OverflowError, RecursionError) as error:
            if debugging():
                raise
            self.error(str(_named(error, words)), error)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error in one line.

        Raises:
            Refusal: in inner parsers, since another type of a union may still fit.
            InputError: in the outermost parser.
        """
        if debugging():
            super().error(message, ex)
        refusal = self._refusal(message, ex)
        raise (InputError(str(refusal)) if self.exit_on_error else refusal) from ex

    def _refusal(self, message: str, ex: Exception | None) -> Refusal:
        match = KEY.match(message)
        key = match[1] if match else ""
        inner = _inner(ex)
        if inner is not None:
            mapped = MAPPED.match(message, match.end()) if match else None
            if mapped:  # model.attacks.eps would be the key of another attack
                return Refusal(key, f"{mapped[1]}: {inner}")
            return Refusal(".".join(filter(None, (key, inner.key))), inner.why)
        if key:
            return Refusal(key, reason(message, key.rpartition(".")[2]))
        parser = getattr(ex, "subcommand_parser", self)
        return Refusal("", about_keys(message, lambda name: _beside(keys_of(parser), name)))


def parse_taken(parser: ZooParser, checkpoint: "Checkpoint", config: dict[str, Any]) -> Namespace:
    """Parse the config taken from a checkpoint; that of an untrusted one imports nothing outside `PACKAGES`.

    Args:
        parser: a parser that raises its errors.
        checkpoint: the checkpoint.
        config: what is taken of its config.

    Raises:
        InputError: the config does not fit the parser, or that of an untrusted checkpoint names anything but allowed
            classes.
    """
    path = checkpoint.path
    try:
        with nullcontext() if checkpoint.trusted else importing_only(PACKAGES):
            parsed = parser.parse_object(copy.deepcopy(config))  # which it would write parsed values into
    except Refusal as refusal:
        denied = next((match[1] for text in _causes(refusal) if (match := DENIED.search(text))), None)
        if denied is not None:
            raise foreign(path, denied) from refusal
        raise InputError(f"checkpoint {path}: {refusal}") from refusal
    for name, named in () if checkpoint.trusted else named_paths(parsed):
        if not is_allowed(named):
            raise foreign(path, name)
    return parsed


def configure_parsing() -> None:
    """Make jsonargparse refuse unsafe values.

    Import paths that run code as such are refused, no object is built where any value is taken, and YAML, of configs
    and of values on the command line, is refused where `attention_zoo.runs.files.parse_yaml` would: alias bombs,
    keys that stand twice, deep nesting.
    """
    set_parsing_settings(import_path_denylist=[], instantiate_subclass_spec_in_any=False)
    set_loader("yaml", _Load(get_loader("yaml")), (yaml.YAMLError,))
    set_dumper("yaml", lambda config: yaml.safe_dump(_readable(config), sort_keys=False, allow_unicode=True))


NO_TEXT = "Unable to serialize instance "
"""What jsonargparse writes, followed by its repr, in place of an object that it has no text for."""


def _readable(config: Any) -> Any:
    """Return a config without the objects that have no text: they are defaults, which their absence means as well."""
    if isinstance(config, dict):
        return {key: _readable(value) for key, value in config.items() if not _has_no_text(value)}
    return [_readable(value) for value in config] if isinstance(config, list) else config


def _has_no_text(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return any(isinstance(part, str) and part.startswith(NO_TEXT) for part in parts)


class _Load:
    """jsonargparse's reader of YAML, with `check_yaml` before it."""

    def __init__(self, stock: Callable[[str], Any]) -> None:
        self.stock: Callable[[str], Any] = stock.stock if isinstance(stock, _Load) else stock

    def __call__(self, text: str) -> Any:
        check_yaml(text, "YAML on the command line")
        return self.stock(text)


def _named(error: Exception, words: Sequence[str]) -> Exception:
    """Return ``error``, or if it comes from a number in a config that is out of range, one that names its key."""
    try:
        for value in values_of(words, "--config", "-c") if isinstance(error, OverflowError) else ():
            check_numbers(read_config(value))
    except InputError as named:
        return named
    return error


def _inner(ex: BaseException | None) -> Refusal | None:
    """Return the refusal of an inner parser that led to ``ex``; None without one."""
    while ex is not None and not isinstance(ex, Refusal):
        ex = ex.__cause__
    return ex


def _beside(keys: list[str], key: str) -> list[str]:
    """Return those of ``keys`` in the group of ``key``, or if there is no such group, the first part of each key."""
    group = key.rpartition(".")[0]
    beside = [name for name in keys if name.rpartition(".")[0] == group]
    return beside if beside and group else [name.partition(".")[0] for name in keys]


def _causes(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__
