"""Parsers whose errors are one line."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from attention_zoo.cli.arguments import read_config, values_of
from attention_zoo.cli.failure import debugging, fail
from attention_zoo.cli.limits import check_config, check_numbers
from attention_zoo.cli.messages import reason, unknown_key
from attention_zoo.domains import shown
from attention_zoo.errors import InputError
from attention_zoo.runs.files import DEEPEST, parse_yaml

DIGITS = re.compile(r"(?<![\w.])[-+]?\d{301,}")
"""A whole number that no float holds."""


def check_yaml(text: str, name: str = "YAML on the command line") -> None:
    """Check a value or a config in YAML; what is no YAML at all is left to its reader, for it may be just words.

    Raises:
        InputError: it would blow up, or a key stands twice.
    """
    if not any(sign in text for sign in "&:[{-"):
        return
    try:
        parse_yaml(text, name)
    except InputError as error:
        if not isinstance(error.__cause__, (yaml.YAMLError, ValueError)):
            raise


def unreadable(name: str, text: str) -> str | None:
    """What of the ``text`` that an option is given is beyond any parser, or says a thing twice; None if nothing is."""
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return f"{name}: {shown(text)} nests deeper than {DEEPEST} levels"
    if DIGITS.search(text):
        return f"{name}: {shown(text)} holds a number of more than 300 digits"
    try:
        check_yaml(text, name)
    except InputError as error:
        return str(error)
    return None


class Refusal(argparse.ArgumentError):
    """What an inner parser, that of one class, has to say: a key relative to the class, and why it was refused."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(None, f"{key}: {why}" if key else why)
        self.key, self.why = key, why


class ShortErrors:
    """Mix-in of jsonargparse's parsers: errors end the program with one line that names the key and the choices.

    Each class in a config is parsed by a parser of its own. The innermost one knows best what was wrong and which
    options there are; those around it add where.
    """

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Namespace:
        """As jsonargparse's; what no option takes is refused whatever the option, and so is a function as a class.

        Args:
            args: the words of the command line, by default those of the program.
            *more: see jsonargparse.
            **kwargs: see jsonargparse.
        """
        from attention_zoo.cli.trust import refuse_functions

        words = list(sys.argv[1:] if args is None else args)
        name = "argument"
        for word in words:
            option, equals, value = word.partition("=")
            name = option.lstrip("-") if option.startswith("--") else name
            wrong = unreadable(name, value if equals else word)
            if wrong:
                self.error(wrong)
        try:
            config = super().parse_args(words, *more, **kwargs)
            check_config(config)
            refuse_functions(config)
        except (ValueError, OverflowError, RecursionError) as error:
            if debugging():
                raise
            self.error(str(_named(error, words)), error)
        return config

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what was wrong; inner parsers raise, since another type of a union may still fit."""
        if debugging():
            super().error(message, ex)
        refusal = self._refusal(message, ex)
        if not self.exit_on_error:
            raise refusal from ex
        fail(str(refusal))

    def _refusal(self, message: str, ex: Exception | None) -> Refusal:
        match = re.match(r'Parser key "([^"]+)"', message)
        key = match[1] if match else ""
        inner = _inner(ex)
        if inner is not None:
            return Refusal(".".join(filter(None, (key, inner.key))), inner.why)
        if key:
            return Refusal(key, reason(message, key.rpartition(".")[2]))
        return Refusal("", self._about_keys(message, ex))

    def _about_keys(self, message: str, ex: Exception | None) -> str:
        """Messages that are about a key as such: it does not exist, or it is missing."""
        refused = re.search(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'", message)
        if refused:
            parser = getattr(ex, "subcommand_parser", self)
            return unknown_key(refused[1] or refused[2], _siblings(parser, refused[1] or refused[2]))
        stray = re.match(r"unrecognized arguments: (\S+)", message)
        if stray and stray[1].startswith("-"):
            name = stray[1].lstrip("-").partition("=")[0]
            return unknown_key(name, _siblings(self, name))
        if stray:
            return f"stray argument {stray[1]!r}; options start with --"
        missing = re.match(r"the following arguments are required: (.*)", message)
        if missing:
            keys = [key.partition(".")[2] or key for key in missing[1].split(", ")]
            return f"missing: give {' and '.join('--' + key for key in sorted(keys))}, or a --config that has them"
        return message


class ZooParser(ShortErrors, ArgumentParser):
    """The parser of the commands that need no trainer."""


def _named(error: Exception, words: Sequence[str]) -> Exception:
    """``error``, or where it is of a number that no parser takes the one that names its key."""
    try:
        for value in values_of(words, "--config", "-c") if isinstance(error, OverflowError) else ():
            check_numbers(read_config(value))
    except InputError as named:
        return named
    return error


def _inner(ex: BaseException | None) -> Refusal | None:
    """The refusal of an inner parser that led to ``ex``."""
    while ex is not None and not isinstance(ex, Refusal):
        ex = ex.__cause__
    return ex


def _siblings(parser: Any, key: str) -> list[str]:
    """The keys of ``parser`` beside ``key``, as far as its group exists."""
    keys = [action.dest for action in parser._actions]
    keys = [name for name in keys if not name.endswith("help") and not name.startswith("print_")]
    group = key.rpartition(".")[0]
    beside = [name for name in keys if name.rpartition(".")[0] == group]
    return beside if beside and group else [name.partition(".")[0] for name in keys]
