"""What runs the jobs of a sweep: processes of this machine, or a cluster through submitit."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from attention_zoo.errors import InputError
from attention_zoo.sweeps.job import Job
from attention_zoo.sweeps.record import Record


class Handle(Protocol):
    """A job that was submitted."""

    def done(self) -> bool:
        """Whether it has come to its end."""

    def result(self) -> Record:
        """How it went, once it is done; raises what broke it."""


class Engine(ABC):
    """Runs jobs, each as soon as it is submitted."""

    stop: Event | None = None
    """Set, it ends the jobs of this machine."""

    @abstractmethod
    def submit(self, job: Job) -> Handle:
        """Start a job and return what tells when it has ended."""

    @abstractmethod
    def close(self) -> None:
        """End what still runs here; jobs on a cluster go on."""


class Local(Engine):
    """Processes of this machine.

    Args:
        workers: how many jobs at a time.
    """

    def __init__(self, workers: int) -> None:
        self.stop: Event = Event()
        # a thread for each job only waits for the processes that do the work
        self.threads = ThreadPoolExecutor(workers)

    def submit(self, job: Job) -> Handle:
        """Start a job, as `Engine` says."""
        return self.threads.submit(job)

    def close(self) -> None:
        """End what still runs here, as `Engine` says."""
        self.stop.set()
        self.threads.shutdown(cancel_futures=True)


class Submitit(Engine):
    """A cluster, by submitit: SLURM, or with ``cluster="local"`` its local mode.

    Args:
        folder: for its logs.
        cluster: ``slurm``, ``local`` or what submitit finds (None).
        parameters: as ``submitit.AutoExecutor.update_parameters`` takes them, such as ``slurm_partition``,
            ``timeout_min``, ``gpus_per_node``.

    Raises:
        InputError: submitit is not installed, or knows no such cluster or parameter.
    """

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
        """Start a job, as `Engine` says."""
        return self.executor.submit(job)

    def close(self) -> None:
        """End what still runs here, as `Engine` says."""
