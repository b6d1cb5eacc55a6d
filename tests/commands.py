"""Runs commands of the project in the tests' own process."""

import sys

from attention_zoo.cli.main import main


def call(*argv):
    """Run a command in this process; its exit code."""
    before, sys.argv = sys.argv, ["attention_zoo"]
    try:
        main([str(argument) for argument in argv])
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0
