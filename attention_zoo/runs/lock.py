"""Gives a run folder one writer at a time: a training locks it, and the lock ends with the process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attention_zoo.errors import InputError

LOCK = ".running"
"""File in a run folder that the training process holds locked; it holds the number of that process."""


@contextmanager
def held(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Lock a run folder while the block runs; it is made if need be, and removed if nothing was written to it.

    The lock is the process's own (POSIX): loader workers do not inherit it, and it is gone when the process is killed.

    Args:
        folder: the run folder.
        ours: whether the folder was made for this run just now, so that it goes too if nothing was written.

    Raises:
        InputError: another process trains in it, or the folder cannot be made or written.
    """
    folders = [folder, folder.parent] if ours else [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(path)
    except OSError as error:
        raise InputError(f"cannot write in the run folder {folder}: {error.strerror}") from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # the first folder that is not empty ends the loop
            for empty in folders:
                empty.rmdir()


def _locked(path: Path) -> int:
    """Return a descriptor of the lock file, which it locks.

    Raises:
        InputError: another process has locked it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            owner = os.pread(handle, 20, 0).decode(errors="replace").strip()
            os.close(handle)
            raise InputError(
                f"{path.parent} is in use: process {owner or 'another'} trains in it; wait for its end, "
                "or choose another folder with --trainer.default_root_dir"
            ) from error
        if _is_still(path, handle):
            return handle
        os.close(handle)  # the process before released and removed the file in between


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
