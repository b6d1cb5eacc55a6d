"""Engines that run the jobs of a sweep: in processes of this machine, or on a cluster through submitit."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any, Protocol

from attention_zoo.errors import InputError
from attention_zoo.sweeps.gpus import shares, visible_gpus
from attention_zoo.sweeps.job import DiskFull, Job
from attention_zoo.sweeps.record import Record, known_record


class Handle(Protocol):
    """A job that was submitted to an engine."""

    def done(self) -> bool:
        """Return whether the job has ended."""

    def result(self) -> Record:
        """Return the record of the job once it has ended, or raise the error that ended it."""


class Engine(ABC):
    """An engine runs jobs, each as soon as it is submitted."""

    stop: Event | None = None
    """An event that ends the jobs of this machine once it is set; None for jobs elsewhere."""

    pauses: tuple[float, float] = (0.5, 30.0)
    """Seconds until a job that came back before its end is submitted again: the first time, and at most."""

    @abstractmethod
    def submit(self, job: Job) -> Handle:
        """Start a job, and return a handle that tells when it has ended."""

    @abstractmethod
    def close(self) -> None:
        """End the jobs that still run on this machine; jobs on a cluster go on."""


class Local(Engine):
    """An engine that runs jobs in processes of this machine, each with its share of the GPUs.

    Args:
        workers: how many jobs run at a time.
    """

    def __init__(self, workers: int) -> None:
        self.stop: Event = Event()
        # the thread of a job only waits for the processes that do the work
        self.threads = ThreadPoolExecutor(workers)
        self._free = SimpleQueue[str | None]()
        for share in shares(visible_gpus(), workers):
            self._free.put(share)

    def submit(self, job: Job) -> Handle:
        """Start a job in a thread, and return its handle."""
        return self.threads.submit(self._run, job)

    def _run(self, job: Job) -> Record:
        """Carry out a job on the GPUs that no other job has."""
        gpus = self._free.get()
        try:
            return replace(job, gpus=gpus)()
        finally:
            self._free.put(gpus)

    def close(self) -> None:
        """Ask the jobs that still run to stop, and wait until they have."""
        self.stop.set()
        self.threads.shutdown(cancel_futures=True)


class Submitted:
    """A job on a cluster; one that ends without a word, as with its node, was killed and can be submitted again.

    Args:
        job: the job.
        handle: submitit's job.
    """

    def __init__(self, job: Job, handle: Any) -> None:
        self.job, self.handle = job, handle

    def done(self) -> bool:
        """Return whether the job has ended."""
        return self.handle.done()

    def result(self) -> Record:
        """Return the record of the job once it has ended; that of one that was lost is ``running``, or has failed.

        Raises:
            DiskFull: the job found the disk full.
        """
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return self.handle.result()
        except FailedJobError as error:
            trace, _, _ = str(error).strip().partition("\n----------------------\nYou can check")
            words = trace.splitlines()[-1].strip() if trace else type(error).__name__
            if DiskFull.__name__ in words:
                raise DiskFull(self.job.folder) from error
            return replace(known_record(self.job.folder)[0], status="failed", reason=f"its job ended in {words}")
        except UncompletedJobError:
            return self.job.lost()


class Submitit(Engine):
    """An engine that runs jobs on a cluster by submitit: SLURM, or with ``cluster="local"`` its local mode.

    Args:
        folder: the folder for submitit's logs.
        cluster: ``slurm`` or ``local``; None takes what submitit finds.
        parameters: the parameters of ``submitit.AutoExecutor.update_parameters``, such as ``slurm_partition``,
            ``timeout_min``, ``gpus_per_node``.

    Raises:
        InputError: submitit is not installed, or knows no such cluster or parameter.
    """

    pauses = (30.0, 600.0)

    def __init__(self, folder: Path, cluster: str | None, parameters: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError('the engine submitit is not installed: pip install "attention_zoo[cluster]"') from error
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self.executor.update_parameters(**parameters)
        except (ValueError, TypeError, RuntimeError, NameError) as error:
            raise InputError(f"submitit: {next(iter(str(error).splitlines()), type(error).__name__)}") from error

    def submit(self, job: Job) -> Handle:
        """Submit a job to the cluster, and return its handle."""
        return Submitted(job, self.executor.submit(job))

    def close(self) -> None:
        """Leave the jobs to the cluster, where they go on."""
