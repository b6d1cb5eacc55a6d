"""What other libraries say where the machine or the input is at fault, and the line that a person gets instead.

Each pattern stands beside its line, which may use the pattern's groups.
"""

import re
from dataclasses import dataclass

MEMORY = "out of memory: a smaller data.batch_size, fewer data.num_workers or a smaller model may help"


@dataclass(frozen=True)
class Saying:
    """An error of another library that is no bug.

    Attributes:
        kinds: classes of the error.
        pattern: somewhere in its message.
        line: what to say; ``{0}`` is the first group of the pattern.
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
        "trainer.devices: of {0} devices give a number above 0",
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
)
"""The first that fits counts."""


def in_our_words(error: BaseException) -> str | None:
    """The line for an error of another library that is the machine's or the input's fault; None for all others."""
    for saying in SAYINGS:
        found = saying.pattern.search(str(error)) if isinstance(error, saying.kinds) else None
        if found is not None:
            return saying.line.format(*found.groups())
    return None
