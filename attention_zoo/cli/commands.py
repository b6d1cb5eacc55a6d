"""Runs a command: a tool, which is a function, or a training command of LightningCLI."""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

from jsonargparse import auto_cli

import attention_zoo
from attention_zoo.cli.arguments import as_config, prepare, read_config, values_of
from attention_zoo.cli.compat import launch_further_processes_with
from attention_zoo.cli.errors import debugging
from attention_zoo.cli.overview import PROGRAM, TRAINING
from attention_zoo.cli.parser import ZooParser, configure_parsing
from attention_zoo.domains import checked, without_empty_lists
from attention_zoo.errors import InputError
from attention_zoo.runs.configs import OPTIONS, with_bases
from attention_zoo.sayings import bad_input, not_restored, other_model

TERMINATED = 143
"""Exit code after SIGTERM, by the convention of shells."""

OUR_PACKAGES = ("tasks", "datamodules")
"""Packages of this project beside the library; a working folder may well have some of the same names."""

WITHOUT_TORCH = ("mixers",)
"""Tools that import the library's mixers only where they must, since that takes seconds."""


def tool(name: str) -> Callable[..., int | None]:
    """Return the function of a tool; some return an exit code.

    Its signature gives the options of the command, its docstring the help.
    """
    function: Callable[..., int | None] = getattr(importlib.import_module(f"attention_zoo.cli.{name}"), name)
    return function


def run(argv: list[str]) -> int | None:
    """Run the command ``argv[0]``, and return its exit code, or None if it has none of its own."""
    command = argv[0]
    argv = with_bases(argv)
    for value in values_of(argv, *OPTIONS):
        read_config(value)  # what it refuses need not wait for torch
    if command not in WITHOUT_TORCH:
        require_mixers()
    put_our_packages_first()
    configure_parsing()
    if command in TRAINING:
        return train(argv)
    function = tool(command)
    words = as_config(function, argv[1:])
    return auto_cli(
        without_empty_lists(checked(function)), args=words, parser_class=ZooParser, prog=f"{PROGRAM} {command}"
    )


def require_mixers() -> None:
    """Import all mixers.

    Raises:
        Exception: whatever the file of one of them raised, such as one that a person is writing.
    """
    _ = attention_zoo.MIXERS  # the first public name that is asked for has them imported
    from attention_zoo.mixers.registry import BROKEN

    for error in BROKEN.values():
        raise error


def train(argv: list[str]) -> int | None:
    """Run a command of LightningCLI, and return `TERMINATED` if SIGTERM ended it.

    Raises:
        InputError: something that the user gave is wrong.
    """
    prepared = prepare(argv)
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from attention_zoo.cli.lightning import ZooCLI  # takes seconds; what `prepare` refuses need not wait for it

    launch_further_processes_with(prepared.argv)
    try:
        ZooCLI(prepared.argv, prepared.checkpoint)
    except SIGTERMException:  # Lightning's own exit would be a success
        return TERMINATED
    except Exception as error:
        path = prepared.checkpoint.path if prepared.checkpoint else None
        message = other_model(error, path) or bad_input(error) or not_restored(error, path)
        if message is None or debugging():
            raise
        raise InputError(message) from error
    return None


def put_our_packages_first() -> None:
    """Have Python import this project's ``tasks`` and ``datamodules``, not those that a working folder may have."""
    root = Path(attention_zoo.__file__).resolve().parents[1]
    for name in OUR_PACKAGES:
        theirs = None if name in sys.modules else PathFinder.find_spec(name)
        ours = PathFinder.find_spec(name, [str(root)])
        if theirs is not None and ours is not None and theirs.origin != ours.origin:
            sys.path.insert(0, str(root))
            return
