"""A process of the tests that fails says why, however early and however hard."""

import os
import signal
import sys

import pytest

from tests.processes import run


class Lost:
    """What cannot be made again in another process."""

    def __reduce__(self):
        return lose, ()


def lose():
    raise RuntimeError("cannot be made again")


def say_and_leave():
    sys.stderr.write("said\n")
    os._exit(1)


@pytest.mark.parametrize(
    ("function", "arguments", "code", "words"),
    [
        (print, [Lost()], 1, "RuntimeError: cannot be made again"),
        (say_and_leave, [], 1, "said"),
        (os.abort, [], -signal.SIGABRT, "Fatal Python error: Aborted"),
    ],
    ids=["before it begins", "without an end", "killed by itself"],
)
def test_one_that_fails_says_why(tmp_path, function, arguments, code, words):
    ended = run(function, *arguments, cwd=tmp_path)
    assert ended.code == code and words in ended.err


def test_one_that_does_not_fail_says_nothing(tmp_path):
    assert run(print, "out", cwd=tmp_path) == (0, "out\n", "")
