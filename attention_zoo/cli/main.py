"""The entry point: it runs the command that is named, and turns bad input into one line and an exit code.

It imports next to nothing, so that help comes at once.
"""

import sys
from collections.abc import Sequence

from attention_zoo.cli.errors import debugging, fail
from attention_zoo.cli.help import short_help, without_all
from attention_zoo.cli.overview import TOOLS, TRAINING, overview
from attention_zoo.errors import unknown
from attention_zoo.sayings import bad_input, broken_file

INTERRUPTED = 130
"""Exit code after Ctrl-C, by the convention of shells."""


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
        from importlib.metadata import version

        sys.stdout.write(f"attention_zoo {version('attention_zoo')}\n")
        sys.exit(0)
    if command not in TRAINING and command not in TOOLS:
        fail(str(unknown("command", command, [*TRAINING, *TOOLS])))
    short = short_help(argv)
    if short is not None:
        sys.stdout.write(short)
        sys.exit(0)
    from attention_zoo.cli.commands import run

    try:
        code = run(without_all(argv))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # Lightning's trainer ends with 1 after Ctrl-C
            sys.exit(INTERRUPTED)
        raise
    except Exception as error:
        message = broken_file(error) or bad_input(error)
        if message is None or debugging():
            raise
        fail(message)
    if code:
        sys.exit(code)
