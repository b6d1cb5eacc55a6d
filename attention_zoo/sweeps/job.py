"""Carry out one run of a sweep: a training and its evaluations, each an ordinary command in a process of its own.

A job knows nothing of the engine that runs it. It skips the parts that are done, resumes the training from its last
checkpoint, and keeps the results in ``run.json``.
"""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from attention_zoo.errors import InputError
from attention_zoo.runs.folders import FOLLOWED, refuse_links
from attention_zoo.runs.results import CONFIG, METRICS, exists, read_metrics
from attention_zoo.runs.trust import TRUSTED
from attention_zoo.sayings import one_line
from attention_zoo.sweeps.checks import FIT
from attention_zoo.sweeps.gpus import VISIBLE
from attention_zoo.sweeps.lock import held
from attention_zoo.sweeps.plan import LOCK, Plan, Run, write
from attention_zoo.sweeps.record import ENDED, RECORD, Record, known_record, read_record

__all__ = ["DiskFull", "Job", "Record", "Stopped", "held", "known_record", "read_record"]

LOG = "run.log"
"""The name of the file with the output of a run's commands, one after the other."""

ASIDE = ".unreadable"
"""The ending added to the name of a file that cannot be read, when it is renamed to make room for a new one."""

INTERRUPTED = {130: signal.SIGINT, 143: signal.SIGTERM}
"""The exit codes of a command that was asked to stop, and the signals that asked it."""

ASKED = 130
"""The exit code that stands for that of a command which this process stopped."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errors of the operating system that say that a disk is full."""

PAUSE = 0.1
"""The seconds between two checks of a process."""

LEAST_SPACE = 2**16
"""The free bytes on a disk below which it counts as full."""

ATTEMPTS = 3
"""The number of kills of one part after which a run counts as failed; until then the part is started again."""


class Stopped(Exception):
    """The sweep was asked to stop; a later start can go on with the run."""


class Drained(Exception):
    """A command was ended from outside, maybe with all else of its machine; another job can go on with the run."""


class DiskFull(InputError):
    """The disk is full, so that neither this run nor any other can go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"no space left on the disk of {folder} (or for temporary files): what is finished is kept; "
            "free some and start the same command again"
        )


@dataclass(frozen=True)
class Job:
    """A job that carries out one run when it is called; it can be called again to go on.

    Args:
        plan: the plan of the sweep.
        run: the run to carry out.
        folder: the folder of the run.
        threads: the number of threads of each process.
        retry: whether a run that failed is tried again.
        stop: an event that, once set, ends the current command and the job; None on a cluster.
        gpus: the GPUs that its processes see, as in ``CUDA_VISIBLE_DEVICES``; None for all that this one sees.
    """

    plan: Plan
    run: Run
    folder: Path
    threads: int = 1
    retry: bool = False
    stop: Event | None = field(default=None, compare=False)
    gpus: str | None = None

    def __call__(self) -> Record:
        """Carry out the parts that are not done yet, and return the record of the run.

        If another process has the run in hand, nothing is done. A run that is handed back as ``running`` or ``waiting``
        can be called for again. One whose folder cannot be locked or written has failed, but is not recorded there.

        Raises:
            DiskFull: the disk has no space left.
        """
        try:
            return self._once()
        except DiskFull:
            raise
        except (InputError, OSError) as error:
            return self._failure(error)

    def _once(self) -> Record:
        record, _ = known_record(self.folder)
        done = record.status == "done" and {FIT, *self.plan.evaluations_of(self.run)} <= record.parts.keys()
        if done or (record.status == "failed" and not self.retry):
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
            except Drained:
                record.status = "running"
            except DiskFull:
                record.status = "waiting"
                self._keep(record)
                raise
            except (InputError, OSError) as error:
                record = self._failure(error, record)
            self._keep(record)
        return record

    def _failure(self, error: InputError | OSError, record: Record | None = None) -> Record:
        """Return the record of the run with an error as the reason why it failed.

        Raises:
            DiskFull: the error is that of a full disk.
        """
        if _says_full(error):
            raise DiskFull(self.folder) from error
        return replace(record or known_record(self.folder)[0], status="failed", reason=one_line(str(error)))

    def lost(self) -> Record:
        """Return the record of the run after the process of this job ended without a word, as its node died.

        That counts as a kill of the part that it was at. The record is ``running``, so that the job is started again,
        until the kills of one part are too many. Where the command itself still runs, nothing is counted.

        Raises:
            DiskFull: the disk has no space left.
        """
        try:
            return self._lost()
        except (InputError, OSError) as error:
            return self._failure(error)

    def _lost(self) -> Record:
        record, _ = known_record(self.folder)
        if record.status in ENDED:
            return record
        with held(self.folder / LOCK) as lock:
            if lock is None:
                return record
            record.status = "running"
            try:
                self._count_kill(
                    record, f"its job ended {ATTEMPTS} times without a word; do nodes die, or out of memory?"
                )
            except InputError as error:
                record.status, record.reason = "failed", str(error)
            self._keep(record)
        return record

    def _count_kill(self, record: Record, reason: str) -> None:
        """Count that a part was killed.

        Raises:
            InputError: that has happened too often, for this reason.
        """
        record.kills, record.part_kills = record.kills + 1, record.part_kills + 1
        self._keep(record)
        if record.part_kills >= ATTEMPTS:
            record.part_kills = 0  # who tries the run again has as many attempts
            raise InputError(reason)

    def _carry_out(self, record: Record, lock: TextIO) -> None:
        if FIT not in record.parts:
            self._part(FIT, record, lock)
        for name in self.plan.evaluations_of(self.run):
            if name not in record.parts:
                self._part(name, record, lock)

    def _part(self, name: str, record: Record, lock: TextIO) -> None:
        """Run the command of one part to its end, and start it again if it is killed.

        One that is asked to stop, though the sweep is not, counts as killed. On a cluster the whole machine may be
        about to go, so that it is left to another job to go on.

        Raises:
            InputError: the command failed, or was killed too often.
            DiskFull: the disk has no space left.
            Stopped: the command was interrupted with the sweep.
            Drained: the command was interrupted elsewhere than on the sweep's own machine.
        """
        started = time.monotonic() - record.begun
        while True:
            before = self._measured_so_far()
            code = self._start(self._command(name), lock)
            if code == 0:
                break
            if code in INTERRUPTED:
                record.begun = time.monotonic() - started
                if self._stopped():
                    raise Stopped
                self._count_kill(record, f"{name} was stopped from outside {ATTEMPTS} times ({INTERRUPTED[code].name})")
                if self.stop is None:
                    raise Drained
                continue
            if code > 0:
                if self._disk_is_full():
                    raise DiskFull(self.folder)
                raise InputError(self._last_words() or f"{name} ended with exit code {code}")
            self._count_kill(record, f"{name} was killed {ATTEMPTS} times (signal {-code}); out of memory?")
        record.parts[name] = round(time.monotonic() - started, 1)
        record.begun, record.part_kills = 0.0, 0
        if name != FIT:
            record.metrics[name] = self._measured(name, before)
        self._keep(record)

    def _stopped(self) -> bool:
        """Return whether the sweep was asked to stop; it may hear of that a moment after its commands."""
        return self.stop is not None and self.stop.wait(10 * PAUSE)

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
        """Delete the files of an attempt that ended before its first checkpoint."""
        left = [self.folder / CONFIG, self.folder / METRICS, *self.folder.glob("events.*")]
        left += list((self.folder / "checkpoints").glob("*"))
        for path in left:
            path.unlink(missing_ok=True)

    def _start(self, arguments: list[str], lock: TextIO) -> int:
        """Run a command and return its exit code, which is negative if a signal ended it."""
        threads = str(self.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        trusted = [os.environ.get(TRUSTED), str(self.folder.absolute())]  # the recipe itself may name any class
        environment[TRUSTED] = os.pathsep.join(filter(None, trusted))
        if self.gpus is not None:
            environment[VISIBLE] = self.gpus
        command = [sys.executable, "-m", "attention_zoo", *arguments, "--trainer.enable_progress_bar", "false"]
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            # the command inherits the lock's descriptor: if this process is killed, the command still holds the lock
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
                process.terminate()  # does nothing to a process that has ended
                code = process.wait()
            return ASKED if self.stop and self.stop.is_set() and code else code

    def _measured_so_far(self) -> int:
        """Return how many measurements are logged; a log that cannot be read is renamed to make room for a new one."""
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
        self._note(f"{problem}; it is now {aside.name}")

    def _note(self, text: str) -> None:
        """Write a line of the sweep's own to the log of the run."""
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"# {text}\n")

    def _measured(self, name: str, before: int) -> dict[str, float | None]:
        """Return the metrics that an evaluation logged.

        Args:
            name: the name of the evaluation.
            before: the number of lines in the log before the evaluation; the last later line of a test counts.

        Raises:
            DiskFull: there is no such line, and the disk is full.
            InputError: there is no such line.
        """
        lines = [line for line in read_metrics(self.folder)[before:] if line.stage == "test"]
        if not lines and self._disk_is_full():
            raise DiskFull(self.folder)
        if not lines:
            raise InputError(f"evaluation {name} logged no metrics")
        return lines[-1].metrics

    def _disk_is_full(self) -> bool:
        """Return whether the last command reported a full disk, or less than `LEAST_SPACE` is free on the disk."""
        return os.strerror(errno.ENOSPC) in self._output() or shutil.disk_usage(self.folder).free < LEAST_SPACE

    def _output(self) -> str:
        """Return the output of the last command."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2]

    def _last_words(self) -> str:
        """Return the last error that the last command wrote, or else its last line; empty if it wrote nothing."""
        lines = [line.strip() for line in self._output().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [""])[-1].removeprefix("error: ")

    def _keep(self, record: Record) -> None:
        write(self.folder / RECORD, json.dumps(asdict(record), indent=1))

    def checkpoint(self) -> Any:
        """Return the job that a cluster starts when this job's time there is over: the same job, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _says_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it comes from, is that of a full disk."""
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__
    return error is not None


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint exists from which a training can go on."""
    from attention_zoo.runs.checkpoint import of_a_run  # imports torch

    found = of_a_run(checkpoint)
    return found is not None and found.config is not None
