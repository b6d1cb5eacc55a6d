"""The entry point: it runs the command that is named, and turns bad input into one line and an exit code."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from jsonargparse import auto_cli

import attention_zoo
from attention_zoo.cli.arguments import as_config, prepare, read_config, values_of
from attention_zoo.cli.bench import bench
from attention_zoo.cli.click import click
from attention_zoo.cli.compat import launch_further_processes_with
from attention_zoo.cli.corrupt import corrupt
from attention_zoo.cli.decode import decode
from attention_zoo.cli.errors import PROGRAM, debugging, fail
from attention_zoo.cli.hosts import hosts
from attention_zoo.cli.look import look
from attention_zoo.cli.maps import maps
from attention_zoo.cli.mixers import mixers
from attention_zoo.cli.parser import ZooParser, configure_parsing
from attention_zoo.cli.premises import premises
from attention_zoo.cli.report import report
from attention_zoo.cli.sweep import sweep
from attention_zoo.domains import checked, without_empty_lists
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers import BROKEN
from attention_zoo.runs.configs import with_bases
from attention_zoo.sayings import bad_input, broken_file, not_restored, other_model

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, by the convention of shells."""

OUR_PACKAGES = ("tasks", "datamodules")
"""Packages of this project beside the library; a working folder may well have some of the same names."""

TRAINING = {
    "fit": "Train a model, or go on with a run.",
    "validate": "Measure a checkpoint on the validation data.",
    "test": "Measure a checkpoint on the test data.",
    "predict": "Write what a checkpoint sees in a folder of images: classes, or masks.",
}
"""Commands of LightningCLI, with the line that the overview has for each."""

TOOLS: dict[str, Callable[..., int | None]] = {
    "mixers": mixers,
    "hosts": hosts,
    "maps": maps,
    "look": look,
    "decode": decode,
    "premises": premises,
    "click": click,
    "corrupt": corrupt,
    "sweep": sweep,
    "report": report,
    "bench": bench,
}
"""Commands that are functions: signatures give the options, docstrings the help; some return an exit code."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends in one line on stderr and exit code 2.

    Args:
        argv: the arguments, by default those of the program.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        (sys.stdout if argv else sys.stderr).write(overview())
        sys.exit(0 if argv else 2)
    if command == "--version":
        sys.stdout.write(f"attention_zoo {version('attention_zoo')}\n")
        sys.exit(0)
    if command not in TRAINING and command not in TOOLS:
        fail(str(unknown("command", command, [*TRAINING, *TOOLS])))
    try:
        code = run(argv)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = broken_file(error) or bad_input(error)
        if message is None or debugging():
            raise
        fail(message)
    if code:
        sys.exit(code)


def run(argv: list[str]) -> int | None:
    """Run the command ``argv[0]``, and return its exit code, or None if it has none of its own."""
    for error in BROKEN.values():
        raise error
    argv = with_bases(argv)
    command = argv[0]
    put_our_packages_first()
    configure_parsing()
    if command in TOOLS:
        tool = TOOLS[command]
        for value in values_of(argv, "--config"):
            read_config(value)
        words = as_config(tool, argv[1:])
        return auto_cli(
            without_empty_lists(checked(tool)), args=words, parser_class=ZooParser, prog=f"{PROGRAM} {command}"
        )
    train(argv)
    return None


def train(argv: list[str]) -> None:
    """Run a command of LightningCLI.

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
        sys.exit(TERMINATED)
    except Exception as error:
        path = prepared.checkpoint.path if prepared.checkpoint else None
        message = other_model(error, path) or bad_input(error) or not_restored(error, path)
        if message is None or debugging():
            raise
        raise InputError(message) from error


def put_our_packages_first() -> None:
    """Have Python import this project's ``tasks`` and ``datamodules``, not those that a working folder may have."""
    root = Path(attention_zoo.__file__).resolve().parents[1]
    for name in OUR_PACKAGES:
        theirs = None if name in sys.modules else PathFinder.find_spec(name)
        ours = PathFinder.find_spec(name, [str(root)])
        if theirs is not None and ours is not None and theirs.origin != ours.origin:
            sys.path.insert(0, str(root))
            return


def overview() -> str:
    """Return the help that lists all commands."""
    tools = {name: (tool.__doc__ or "").strip().partition("\n")[0] for name, tool in TOOLS.items()}
    lines = [f"  {name:<10} {text}" for name, text in {**TRAINING, **tools}.items()]
    return (
        f"usage: {PROGRAM} [--help] [--version] COMMAND ...\n\n"
        "Readings of attention behind one registry.\n\ncommands:\n"
        + "\n".join(lines)
        + f"\n\n{PROGRAM} COMMAND --help lists the options of a command.\n"
    )
