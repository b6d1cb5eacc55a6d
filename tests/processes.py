"""Processes of tests, forked from a server that has imported the project: each starts at once, and as new.

A program takes seconds of computation to import torch, Lightning and timm before it does anything. Tests that start
real programs are those of starting itself, and of what an import does.
"""

import contextlib
import faulthandler
import functools
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["attention_zoo.cli.main", "attention_zoo.cli.lightning", "tasks", "datamodules"]
GRACE = 20.0
"""Seconds that other processes may go on after one has failed, as with torchrun."""


class Ended(NamedTuple):
    """How a process ended; the code is that of the first process that ended with another one than 0."""

    code: int
    out: str
    err: str


class Processes:
    """Processes that have been started, each the leader of a group of its own."""

    def __init__(self, processes: Sequence[BaseProcess], out: Path, err: Connection, logged: int) -> None:
        self._processes, self._out, self._err, self._logged = processes, out, bytearray(), logged
        self._reader = threading.Thread(target=self._read, args=(err,), daemon=True)
        self._reader.start()

    def signal(self, number: int) -> None:
        """Send a signal to each process and to those that it has started, as a terminal does."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def printed(self) -> str:
        """Return what has come to stdout until now."""
        return self._out.read_text()

    def kill(self) -> None:
        """Kill each process, not those that it has started."""
        for process in self._processes:
            process.kill()

    def wait(self, timeout: float) -> Ended:
        """Wait until all have ended, those that they have started too, or a little longer than the first that fails.

        What they have started has ended when nothing can write to their stderr any more. One that fails before it is
        what a program is at its start has said why where the server writes.
        """
        end = time.monotonic() + timeout
        while self._reader.is_alive() or any(process.is_alive() for process in self._processes):
            if any(process.exitcode for process in self._processes):
                end = min(end, time.monotonic() + GRACE)
            assert time.monotonic() < end, f"still running: {self._err.decode()}"
            self._reader.join(0.05)
        code = next((process.exitcode for process in self._processes if process.exitcode), 0)
        err = self._err or (_server_log(self._logged) if code else b"")
        return Ended(code, self._out.read_text(), err.decode())

    def _read(self, err: Connection) -> None:
        with err:
            while part := os.read(err.fileno(), 2**16):
                self._err += part


@contextlib.contextmanager
def started(
    function: Callable[..., object], *arguments: Any, ranks: int = 1, cwd: Path, path: Sequence[Path] = ()
) -> Iterator[Processes]:
    """Call a function in new processes while the block runs; what still runs then is killed.

    Args:
        function: the function; its module must be one that can be imported.
        arguments: its arguments; more than one process gets the same.
        ranks: number of processes; more than one have the environment that torchrun would give them.
        cwd: the working folder of the processes.
        path: folders to import modules from.
    """
    serve()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        out.touch()
        err, end = CONTEXT.Pipe(duplex=False)
        begin = (function, arguments, cwd, [*map(str, path)], out, end)
        processes = [CONTEXT.Process(target=_begin, args=(environment, *begin)) for environment in _environments(ranks)]
        logged = len(_server_log())
        for process in processes:
            process.start()
        end.close()
        group = Processes(processes, out, err, logged)
        try:
            yield group
        finally:
            group.signal(signal.SIGKILL)
            group.kill()
            for process in processes:
                process.join()


def run(function: Callable[..., object], *arguments: Any, timeout: float = 180, **options: Any) -> Ended:
    """Call a function in new processes, see `started`, and wait for them, at most ``timeout`` seconds."""
    with started(function, *arguments, **options) as processes:
        return processes.wait(timeout)


def serve() -> None:
    """Start the server that forks, if it does not run yet."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    stderr = os.dup(2)  # a test's own, which ends with the test; the server goes on
    os.dup2(_server_stderr().fileno(), 2)
    try:
        with contextlib.chdir(ROOT):  # which comes first where it looks for modules
            forkserver.ensure_running()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@functools.cache
def _server_stderr() -> BinaryIO:
    """Return the file that the server and its processes, until they begin, have as their stderr."""
    return tempfile.TemporaryFile()  # as long as the server


def _server_log(start: int = 0) -> bytes:
    """Return what has come to the server's stderr, from a byte on; where they write next stays as it is."""
    file = _server_stderr().fileno()
    return os.pread(file, os.fstat(file).st_size - start, start)


def _begin(
    environment: Mapping[str, str],
    function: Callable[..., object],
    arguments: Sequence[Any],
    cwd: Path,
    path: Sequence[str],
    out: Path,
    err: Connection,
) -> None:
    """Make this process what a program is at its start, and call the function."""
    multiprocessing.set_start_method(None, force=True)  # else its own processes would come from a server, too
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = path
    os.dup2(os.open(out, os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(err.fileno(), 2)
    err.close()
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115  # as Python's own
    faulthandler.enable()
    sys.modules["__main__"].__spec__ = find_spec("attention_zoo.__main__")  # Lightning starts more of these
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))  # Lightning looks as it is imported
    torch.set_num_threads(1)
    function(*arguments)


def _environments(ranks: int) -> list[dict[str, str]]:
    """Return the environment of each process."""
    if ranks == 1:
        return [dict(os.environ)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
