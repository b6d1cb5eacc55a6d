"""Tells errors that the user can mend from bugs, and rewords those of other libraries in one line.

Every pattern of another library's wording stands beside the line that the user gets instead; those of its parser are
in `attention_zoo.cli.errors`. ``tests/cli/test_errors.py`` makes the libraries raise each of them.
"""

import os
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from attention_zoo.errors import InputError

RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
"""Module of Lightning that restores the states in a checkpoint (and, in ``dump_...``, writes them)."""

MEMORY = "out of memory: a smaller data.batch_size, fewer data.num_workers or a smaller model may help"


@dataclass(frozen=True)
class Saying:
    """An error of another library that is no bug, with the line that the user gets.

    Attributes:
        kinds: classes of the error.
        pattern: a pattern that is found somewhere in its message.
        line: the line for the user; ``{0}`` stands for the first group of the pattern.
    """

    kinds: tuple[type[BaseException], ...]
    pattern: re.Pattern[str]
    line: str


SAYINGS = (
    Saying((MemoryError,), re.compile(""), MEMORY),
    Saying(
        (RuntimeError, OSError),
        re.compile(r"can't allocate memory|[Cc]annot allocate memory|bad_alloc|out of memory|[Nn]ot enough memory"),
        MEMORY,
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)"),
        "a loader process ({0}) was killed, {1}: out of memory? fewer data.num_workers may help",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly"),
        "a loader process ({0}) ended before its work was done: out of memory? fewer data.num_workers may help",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"unable to (?:open|write to|mmap|allocate).*(?:shared memory|torch_\d+|shm)|items of ancdata"),
        "loader processes have no more shared memory or open files: fewer data.num_workers help, or a higher ulimit -n",
    ),
    Saying(
        (RuntimeError, OSError),
        re.compile(r"can't start new thread|Resource temporarily unavailable"),
        "no further thread or process can be started: a limit of the machine (ulimit -u, -v) is reached",
    ),
    Saying(
        (ValueError,),
        re.compile(r"Expected more than 1 value per channel when training, got input size (.*?)\s*$"),
        "a batch normalisation sees one value per channel (size {0}), of which nothing can be learned: train with a "
        "data.batch_size of 2 or more, or on larger images",
    ),
    Saying(
        (OSError, RuntimeError),
        re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing"),
        "no space left on the disk: what was finished is kept; free some, and go on with --ckpt_path last",
    ),
    Saying(
        (TypeError,),
        re.compile(r"`devices` selected with `(\w+)Accelerator` should be"),
        "trainer.devices: of {0} devices give auto or a number from 1; -1 (all) and lists are for GPUs",
    ),
    Saying(
        (Exception,),
        re.compile("No supported gpu backend found"),
        "trainer.accelerator gpu: there is no GPU here; choose cpu, or auto for what there is",
    ),
    Saying(
        (Exception,),
        re.compile(r"`(\w+)Accelerator` can not run on your system.*: \[(.*)\]\.$", re.DOTALL),
        "trainer.accelerator: there is no {0} here; choose from: 'auto', {1}",
    ),
    Saying(
        (ValueError,),
        re.compile(r"invalid accelerator name: `accelerator='(.*)'`\. Available names are: (.*)\.$"),
        "trainer.accelerator: unknown accelerator '{0}'; choose from: {1}, gpu",
    ),
    Saying(
        (Exception,),
        re.compile(r"You requested gpu: (\[.*\])\s+But your machine only has: (\[.*\])"),
        "trainer.devices: GPUs {0} were asked for, and this machine has {1}; give auto, -1 (all) or some of these",
    ),
    Saying(
        (ValueError,),
        re.compile(
            r"`val_check_interval` \((\d+)\) must be less than or equal to the number of the training batches \((\d+)\)"
        ),
        "trainer.val_check_interval={0} is more than the {1} batches of an epoch: give at most {1}, or with "
        "trainer.check_val_every_n_epoch null, which counts batches across epochs, any number",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"The current optimizer, (\w+), does not allow for gradient clipping"),
        "trainer.gradient_clip_val: {0} with fused true scales gradients itself under mixed precision; leave fused out",
    ),
    Saying(
        (ValueError,),
        re.compile(r"You have set `accumulate_grad_batches` and are using the `GradientAccumulationScheduler`"),
        "trainer.accumulate_grad_batches and the callback GradientAccumulationScheduler set the same; leave one out",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"The `(\w+)` does not support `accumulate_grad_batches` changing between epochs"),
        "trainer.callbacks: under {0} no GradientAccumulationScheduler can change the accumulated batches",
    ),
    Saying(
        (ModuleNotFoundError,),
        re.compile(r"Requirement '([^']+)' not met"),
        "an option of the trainer needs {0}, which is not installed",
    ),
    Saying(
        (RuntimeError,),
        re.compile(r"Found more than one stateful callback of type `(\w+)`"),
        "trainer.callbacks: two {0} that no checkpoint could tell apart; every run has a ModelCheckpoint of its last "
        "state, so that a further one needs a monitor, or other epochs or steps",
    ),
    Saying(
        (OSError,),
        re.compile("Too many open files"),
        "too many open files: fewer data.num_workers help, or a higher ulimit -n",
    ),
    Saying(
        (UnicodeEncodeError,),
        re.compile(r"codec can't encode .*surrogates not allowed"),
        "the name of a file or folder is not UTF-8; rename it",
    ),
    Saying(
        (RuntimeError,),
        re.compile(
            r"C\+\+ compiler found|Compiler: \S+ is not found|working triton|too old to be supported by the triton"
        ),
        "model.compile true needs a compiler of C++, and on a GPU Triton and one of compute capability 7.0 or more; "
        "without them leave it false",
    ),
    Saying((RuntimeError,), re.compile(r"^(Early stopping conditioned on metric .*)$", re.DOTALL), "{0}"),
)
"""Errors of a running command; the first that fits counts."""

STRAY = re.compile(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '([^']+)'")
"""The pattern of Python's message that a constructor takes no such argument."""

OURS = ("attention_zoo", "tasks", "datamodules")
"""The packages in which a person may have put a file."""

STATE = re.compile(r"Error\(s\) in loading state_dict for (\w+):")
"""Pattern of torch: weights do not fit a model."""

WORKER = re.compile(r"Original Traceback")
"""Pattern of torch: a loader process failed, and its traceback follows."""


def one_line(message: str) -> str:
    """Return ``message`` without line breaks, and without the traceback that a data worker wraps around it."""
    message = message.encode("utf-8", "backslashreplace").decode()
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if WORKER.search(message):
        return lines[-1].partition(": ")[2] or lines[-1]
    return " ".join(lines)


def bad_input(error: BaseException) -> str | None:
    """Return the line that tells the user what was wrong, or None if the error is a bug."""
    if isinstance(error, InputError):
        return str(error)
    if type(error).__name__ == "MisconfigurationException":
        return in_our_words(error) or str(error)
    if type(error).__name__ == "MlflowException":  # of a library that need not be installed
        return f"MLflow: {one_line(str(error))}"
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return in_our_words(error)


def broken_file(error: BaseException) -> str | None:
    """Return the line about a file of this project that cannot be imported; None for an error of other origin."""
    roots = [Path(module.__file__).parent for name in OURS if (module := sys.modules.get(name)) and module.__file__]
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        frames = traceback.walk_tb(error.__traceback__)
        places = [(frame.f_code.co_filename, line) for frame, line in frames if frame.f_code.co_name == "<module>"]
    places = [place for place in places if any(Path(place[0]).is_relative_to(root) for root in roots)]
    if not places:
        return None
    file, line = places[-1]
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return f"{file}, line {line}, cannot be imported: {kind}{one_line(message)}"


def in_our_words(error: BaseException) -> str | None:
    """Return the line for another library's error that machine or input caused, by `SAYINGS`; None for all others."""
    for saying in SAYINGS:
        match = saying.pattern.search(str(error)) if isinstance(error, saying.kinds) else None
        if match is not None:
            return saying.line.format(*match.groups())
    return None


def bad_argument(error: BaseException) -> str | None:
    """Return the line of `bad_input` for an error in building a config's objects, where ValueErrors are the user's."""
    stray = STRAY.search(str(error)) if isinstance(error, TypeError) else None
    if stray is not None:  # a mapping in the config was passed to the constructor as it is
        return f"{stray[1]} has no option {stray[2]!r}"
    if isinstance(error, ValueError) and not isinstance(error, InputError):
        return in_our_words(error) or str(error)
    return bad_input(error)


def root_cause(error: BaseException) -> BaseException:
    """Return the error that a constructor raised, which jsonargparse wraps in ValueErrors about type unions."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


GROUPS = re.compile("parameter group")
"""The pattern of what torch says of an optimizer's state whose groups do not fit."""


def not_restored(error: BaseException, checkpoint: Path | None) -> str | None:
    """Return the line about a checkpoint whose states Lightning cannot restore; None for an error of other origin."""
    if checkpoint is None:
        return None
    restoring = any(
        frame.f_globals.get("__name__") == RESTORING and "dump" not in frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
    if not restoring:
        return None
    why = f"{type(error).__name__}: {one_line(str(error))}"
    if isinstance(error, ValueError) and GROUPS.search(str(error)):
        why = (
            "the optimizer's groups of parameters are others than in the file: keep model.layer_decay and what is "
            "frozen as they were, or start another training from its weights: model.weights"
        )
    return f"checkpoint {checkpoint} cannot be gone on from: {why}"


def other_model(error: BaseException, checkpoint: Path | None) -> str | None:
    """Return the line about weights that do not fit the model, with a few of their keys; None for any other error."""
    head, *problems = [line.strip().rstrip(". ") for line in str(error).splitlines() if line.strip()] or [""]
    model = STATE.fullmatch(head)
    if model is None or not isinstance(error, RuntimeError):
        return None
    from attention_zoo.compat import shape_mismatches  # imports timm

    shapes = [shape for problem in problems for shape in shape_mismatches(problem)]
    parts = [_first_keys(problem) for problem in problems if not shape_mismatches(problem)]
    parts += [f"{key} is {file} in the file, {here} in the model" for key, file, here in shapes[:3]]
    return f"checkpoint {checkpoint} is of another model than this {model[1]}: {'; '.join(parts)}"


def _first_keys(problem: str, most: int = 3) -> str:
    head, _, keys = problem.partition(": ")
    names = keys.split(", ")
    return f"{head}: {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
