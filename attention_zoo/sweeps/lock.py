"""The lock of a sweep and of each of its runs: one process at a time has one in hand."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from attention_zoo.errors import InputError


@contextmanager
def held(path: Path) -> Iterator[TextIO | None]:
    """Yield a locked file, or None if another process holds the lock.

    Processes that inherit the file's descriptor hold the lock too, until the last of them ends.

    Raises:
        InputError: the file cannot be locked, for example because it is a link or a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the flags keep it from following a link and from waiting for a pipe of this name
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"cannot lock {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"cannot lock {path}: it is no regular file")
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            raise InputError(f"cannot lock {path}: {error.strerror}") from error
        yield file
