"""One run of a sweep: a training and its evaluations, each an ordinary command in a process of its own.

A job knows nothing of what carries it out. It skips what is done, goes on from the last checkpoint with what is not,
and keeps what came out in ``run.json``.
"""

import errno
import fcntl
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from attention_zoo.errors import InputError
from attention_zoo.runs.folders import FOLLOWED, refuse_links
from attention_zoo.runs.results import CONFIG, METRICS, exists, read_metrics
from attention_zoo.runs.trust import TRUSTED
from attention_zoo.sweeps.checks import FIT
from attention_zoo.sweeps.plan import LOCK, Plan, Run, write
from attention_zoo.sweeps.record import RECORD, Record, known_record, read_record

__all__ = ["DiskFull", "Job", "Record", "Stopped", "held", "is_whole", "known_record", "read_record"]

LOG = "run.log"
"""What the commands of a run wrote, one after the other."""

ASIDE = ".unreadable"
"""Added to the name of a file that cannot be read, when it makes room for a new one."""

INTERRUPTED = (130, 143)
"""Exit codes of a command that was asked to stop."""

PAUSE = 0.1
"""Seconds between two looks at a process."""

LEAST_SPACE = 2**16
"""Bytes on a disk below which it is full."""

ATTEMPTS = 3
"""How often a part of a run that was killed is started in all before the run counts as failed."""


class Stopped(Exception):
    """The run was asked to stop; it can go on later."""


class DiskFull(InputError):
    """The run cannot go on, through no fault of its own, and nor can any other."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"no space left on the disk of {folder} (or for temporary files): what is finished is kept; "
            "free some and start the same command again"
        )


@dataclass(frozen=True)
class Job:
    """Carry out one run; call it as often as needed.

    Args:
        plan: of the sweep.
        run: which of its runs.
        folder: of the run.
        threads: of each process.
        retry: whether a run that failed is tried again.
        stop: once set, the command at hand is ended, and with it the job.
    """

    plan: Plan
    run: Run
    folder: Path
    threads: int = 1
    retry: bool = False
    stop: Event | None = field(default=None, compare=False)

    def __call__(self) -> Record:
        """Do what is not done yet, and say how that went; nothing, if another process has the run in hand.

        Raises:
            DiskFull: the disk is.
        """
        record, _ = known_record(self.folder)
        if record.status == "done" or (record.status == "failed" and not self.retry):
            return record
        with held(self.folder / LOCK) as lock:
            if lock is None:
                return record
            record, problem = known_record(self.folder)
            try:
                refuse_links(self.folder / LOG, *(self.folder / name for name in FOLLOWED))
                if problem is not None:
                    self._put_aside(RECORD, problem)
                record.status, record.reason = "running", None
                self._keep(record)
                self._carry_out(record, lock)
                record.status = "done"
            except Stopped:
                record.status = "waiting"
            except DiskFull:
                record.status = "waiting"
                self._keep(record)
                raise
            except InputError as error:
                record.status, record.reason = "failed", str(error)
            self._keep(record)
        return record

    def _carry_out(self, record: Record, lock: TextIO) -> None:
        if FIT not in record.parts:
            self._part(FIT, record, lock)
        for name in self.plan.evaluations:
            if name not in record.parts:
                self._part(name, record, lock)

    def _part(self, name: str, record: Record, lock: TextIO) -> None:
        """Run one command to its end, again if it is killed.

        Raises:
            InputError: it failed.
            Stopped: it was interrupted.
        """
        started = time.monotonic() - record.begun
        while True:
            before = self._measured_so_far()
            code = self._start(self._command(name), lock)
            if code == 0:
                break
            if code in INTERRUPTED:
                record.begun = time.monotonic() - started
                raise Stopped
            if code > 0:
                if self._disk_is_full():
                    raise DiskFull(self.folder)
                raise InputError(self._last_words() or f"{name} ended with exit code {code}")
            record.kills += 1
            self._keep(record)
            if record.kills % ATTEMPTS == 0:
                raise InputError(f"{name} was killed {ATTEMPTS} times (signal {-code}); out of memory?")
        record.parts[name], record.begun = round(time.monotonic() - started, 1), 0.0
        if name != FIT:
            record.metrics[name] = self._measured(name, before)
        self._keep(record)

    def _command(self, name: str) -> list[str]:
        here = ["--trainer.default_root_dir", str(self.folder)]
        last = self.folder / "checkpoints" / "last.ckpt"
        if name != FIT:
            return ["test", "--ckpt_path", str(last), *self.plan.evaluation(name), *here]
        if is_whole(last):
            return [FIT, "--ckpt_path", "last", *here]
        self._clear()
        return [FIT, *self.plan.recipe(), *self.run.arguments, *here]

    def _clear(self) -> None:
        """Put away what an attempt left that did not get as far as a checkpoint."""
        left = [self.folder / CONFIG, self.folder / METRICS, *self.folder.glob("events.*")]
        left += list((self.folder / "checkpoints").glob("*"))
        for path in left:
            path.unlink(missing_ok=True)

    def _start(self, arguments: list[str], lock: TextIO) -> int:
        """Run a command; its exit code, negative for a signal."""
        threads = str(self.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        trusted = [os.environ.get(TRUSTED), str(self.folder.absolute())]  # the recipe itself may name any class
        environment[TRUSTED] = os.pathsep.join(filter(None, trusted))
        command = [sys.executable, "-m", "attention_zoo", *arguments, "--trainer.enable_progress_bar", "false"]
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            # what has the lock's descriptor holds the lock: if this process is killed, the run is still in hand
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
            try:
                while process.poll() is None and not (self.stop and self.stop.is_set()):
                    time.sleep(PAUSE)
            finally:
                process.terminate()  # a process that has ended does not mind
                code = process.wait()
            return INTERRUPTED[0] if self.stop and self.stop.is_set() and code else code

    def _measured_so_far(self) -> int:
        """How many measurements are logged; a log that cannot be read makes room for a new one."""
        try:
            return len(read_metrics(self.folder))
        except InputError as error:
            self._put_aside(METRICS, str(error))
            return 0

    def _put_aside(self, name: str, problem: str) -> None:
        """Rename a file that cannot be read, and say so in the log of the run."""
        path = self.folder / name
        aside = next(
            place for count in itertools.count() if not exists(place := path.with_name(f"{name}{ASIDE}{count or ''}"))
        )
        path.rename(aside)
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"# {problem}; it is now {aside.name}\n")

    def _measured(self, name: str, before: int) -> dict[str, float | None]:
        """The metrics that an evaluation logged: the last of the lines that are new."""
        lines = [line for line in read_metrics(self.folder)[before:] if line.stage == "test"]
        if not lines and self._disk_is_full():
            raise DiskFull(self.folder)
        if not lines:
            raise InputError(f"evaluation {name} logged no metrics")
        return lines[-1].metrics

    def _disk_is_full(self) -> bool:
        """Whether the last command said so, or could not even do that."""
        return os.strerror(errno.ENOSPC) in self._output() or shutil.disk_usage(self.folder).free < LEAST_SPACE

    def _output(self) -> str:
        """Read what the last command wrote."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2]

    def _last_words(self) -> str:
        """The error that the last command ended with, as it said it."""
        lines = [line.strip() for line in self._output().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [""])[-1].removeprefix("error: ")

    def _keep(self, record: Record) -> None:
        write(self.folder / RECORD, json.dumps(asdict(record), indent=1))

    def checkpoint(self) -> Any:
        """Return what a cluster starts when the time of this job there is over: the same job, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def is_whole(checkpoint: Path) -> bool:
    """Whether there is a checkpoint that can be gone on from."""
    from attention_zoo.runs.checkpoint import read_checkpoint

    try:
        return read_checkpoint(checkpoint).config is not None
    except InputError:
        return False


@contextmanager
def held(path: Path) -> Iterator[TextIO | None]:
    """A lock on a file as long as this process, or one that inherits it, lives; None if another one has it.

    Raises:
        InputError: there can be no lock, as where something else has its name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # no link is followed, and a pipe of this name is not waited for
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
