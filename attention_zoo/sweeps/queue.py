"""The queue of a sweep's jobs, in which one that came back before its end waits for a while."""

import time
from collections.abc import Iterable

from attention_zoo.sweeps.job import Job


class Queue:
    """Jobs in the order in which they start.

    Args:
        jobs: the jobs.
        pauses: the seconds that a job waits which came back before its end: the first time, and at most. Each time is
            twice the one before.
    """

    def __init__(self, jobs: Iterable[Job], pauses: tuple[float, float]) -> None:
        self.jobs = list(jobs)
        self.first, self.most = pauses
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.jobs)

    def put_back(self, job: Job) -> None:
        """Take a job in again; others go first while it waits."""
        name = job.run.name
        self._pauses[name] = min(self.most, 2 * self._pauses.get(name, self.first / 2))
        self._due[name] = time.monotonic() + self._pauses[name]
        self.jobs.append(job)

    def take(self) -> Job | None:
        """Return the next job, which leaves the queue; None if none is due yet."""
        now = time.monotonic()
        for place, job in enumerate(self.jobs):
            if self._due.get(job.run.name, now) <= now:
                return self.jobs.pop(place)
        return None
