"""How a command ends on bad input: one line on stderr, exit code 2."""

import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from attention_zoo.cli.foreign import in_our_words
from attention_zoo.errors import InputError

PROGRAM = "python -m attention_zoo"

DEBUG = "JSONARGPARSE_DEBUG"
"""Environment variable; with the value ``true`` errors keep their traceback. jsonargparse reads it too."""

BAD_INPUT = 2
"""Exit code of every command that was given something wrong."""

RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
"""Module of Lightning that takes up the states in a checkpoint (and, in ``dump_...``, writes them)."""

PATIENCE = 5.0
"""Seconds that a process waits for another one of the same run to speak first."""

SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) .*torch\.Size\((.*?)\)")
"""How torch says that a weight has another shape."""

STRAY = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '([^']+)'")
"""How Python says that a constructor takes no such argument."""


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG, "").lower() == "true"


def fail(message: str) -> NoReturn:
    """Write one line to stderr and exit with code 2.

    Processes of one run mostly fail alike, and the first speaks for all: it, or what launched them, ends the others.
    The others wait for that, and speak only if it does not come.
    """
    if rank() > 0:
        time.sleep(PATIENCE)
    sys.stderr.write(f"error: {one_line(message)}\n")
    leave()


def leave() -> NoReturn:
    """End with the exit code of bad input.

    Where processes are connected, without torch's clean-up: its threads still wait for the other processes, which may
    be gone, and the interpreter's end would abort them, and with them this process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        os._exit(BAD_INPUT)
    sys.exit(BAD_INPUT)


def failed_elsewhere(processes: list[subprocess.Popen]) -> bool:
    """Whether one of the processes that this one launched ended with bad input (waits a moment for its end)."""
    deadline = time.monotonic() + PATIENCE / 2
    while processes and time.monotonic() < deadline:
        if any(process.poll() == BAD_INPUT for process in processes):
            return True
        time.sleep(0.1)
    return False


def one_line(message: str) -> str:
    """``message`` without line breaks, and without the traceback that a data worker wraps around it."""
    message = message.encode("utf-8", "backslashreplace").decode()
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if "Original Traceback" in message:
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines)


def bad_input(error: BaseException) -> str | None:
    """The line that tells the user what was wrong, or None where the error is a bug."""
    if isinstance(error, InputError) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned on metric"):
        return str(error)
    return in_our_words(error)


def bad_argument(error: BaseException) -> str | None:
    """As `bad_input`, of an error while the objects of a config are built: there any ValueError is the user's."""
    stray = STRAY.search(str(error)) if isinstance(error, TypeError) else None
    if stray is not None:  # a mapping of a config was handed on as it is
        return f"{stray[1]} has no option {stray[2]!r}"
    return str(error) if isinstance(error, ValueError) else bad_input(error)


def root_cause(error: BaseException) -> BaseException:
    """What a constructor raised; jsonargparse wraps it in ValueErrors about type unions."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def not_restored(error: BaseException, checkpoint: Path | None) -> str | None:
    """The line about a checkpoint whose states Lightning could not take up; None for an error of any other origin."""
    if checkpoint is None:
        return None
    restoring = any(
        frame.f_globals.get("__name__") == RESTORING and "dump" not in frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    said = one_line(str(error))
    return f"checkpoint {checkpoint} cannot be gone on from: {type(error).__name__}: {said}" if restoring else None


def other_model(error: BaseException, checkpoint: Path | None) -> str | None:
    """The line about weights that do not fit the model, with the first few keys only; None for any other error."""
    head, *problems = [line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()] or [""]
    model = re.fullmatch(r"Error\(s\) in loading state_dict for (\w+):", head)
    if model is None or not isinstance(error, RuntimeError):
        return None
    shapes = [found for problem in problems for found in SHAPES.findall(problem)]
    said = [_first_keys(problem) for problem in problems if not SHAPES.match(problem)]
    said += [f"{key} is {file} in the file, {here} in the model" for key, file, here in shapes[:3]]
    return f"checkpoint {checkpoint} is of another model than this {model[1]}: {'; '.join(said)}"


def _first_keys(problem: str, most: int = 3) -> str:
    head, _, keys = problem.partition(": ")
    names = keys.split(", ")
    return f"{head}: {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")


def rank() -> int:
    """Which process of the run this is; launchers say so in the environment."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or 0)
