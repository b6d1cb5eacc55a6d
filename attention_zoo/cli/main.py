"""Which command, and how it ends."""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from jsonargparse import auto_cli

from attention_zoo.cli.bench import bench
from attention_zoo.cli.corrupt import corrupt
from attention_zoo.cli.failure import PROGRAM, bad_input, debugging, fail, other_model
from attention_zoo.cli.maps import maps
from attention_zoo.cli.mixers import mixers
from attention_zoo.cli.parser import ZooParser
from attention_zoo.cli.report import report
from attention_zoo.cli.sweep import sweep
from attention_zoo.cli.words import as_config
from attention_zoo.domains import checked
from attention_zoo.errors import InputError, unknown

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as shells have them."""

TRAINING = {
    "fit": "Train a model, or go on with a run.",
    "validate": "Measure a checkpoint on the validation data.",
    "test": "Measure a checkpoint on the test data.",
    "predict": "Write what a checkpoint sees in a folder of images: classes, or masks.",
}
"""Commands of LightningCLI."""

TOOLS: dict[str, Callable[..., None]] = {
    "mixers": mixers,
    "maps": maps,
    "corrupt": corrupt,
    "sweep": sweep,
    "report": report,
    "bench": bench,
}
"""Commands that are a function: its signature gives the options, its docstring the help."""


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
        run(argv)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = bad_input(error)
        if message is None or debugging():
            raise
        fail(message)


def run(argv: list[str]) -> None:
    """Run the command ``argv[0]``."""
    command = argv[0]
    if command in TOOLS:
        tool = TOOLS[command]
        auto_cli(checked(tool), args=as_config(tool, argv[1:]), parser_class=ZooParser, prog=f"{PROGRAM} {command}")
    else:
        train(argv)


def train(argv: list[str]) -> None:
    """Run a command of LightningCLI."""
    from attention_zoo.cli.arguments import prepare

    prepared = prepare(argv)
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from attention_zoo.cli.lightning import ZooCLI  # takes seconds; what `prepare` refuses need not wait for it

    sys.argv = [sys.argv[0], *prepared.argv]
    try:
        ZooCLI(prepared.checkpoint)
    except SIGTERMException:  # Lightning's own exit would be a success
        sys.exit(TERMINATED)
    except RuntimeError as error:
        message = other_model(error, prepared.checkpoint.path if prepared.checkpoint else None)
        if message is None or debugging():
            raise
        raise InputError(message) from error


def overview() -> str:
    """The help that lists all commands."""
    tools = {name: (tool.__doc__ or "").strip().partition("\n")[0] for name, tool in TOOLS.items()}
    lines = [f"  {name:<10} {text}" for name, text in {**TRAINING, **tools}.items()]
    return (
        f"usage: {PROGRAM} [--help] [--version] COMMAND ...\n\n"
        "Readings of attention behind one registry.\n\ncommands:\n"
        + "\n".join(lines)
        + f"\n\n{PROGRAM} COMMAND --help lists the options of a command.\n"
    )
