"""Runs commands of the project in the tests' own process."""

import sys

from attention_zoo.cli.errors import debugging
from attention_zoo.cli.main import main


def call(*argv):
    """Run a command in this process; its exit code."""
    # jsonargparse keeps parsers made meanwhile, and their log on the stderr of the time would be that of later commands
    assert not debugging(), "a command is debugged in a process of its own"
    before, sys.argv = sys.argv, ["attention_zoo"]
    try:
        main([str(argument) for argument in argv])
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0
