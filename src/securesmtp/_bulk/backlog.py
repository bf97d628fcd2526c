"""The messages of a run that no worker has taken yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from securesmtp._bulk.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Backlog:
    """
    The jobs that no worker has taken yet.

    Attributes:
        is_closed: Whether no more jobs are taken from it.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Start empty and open; *on_change* is called when there is a job for a worker, and at the end."""
        self.is_closed: bool = False
        self._jobs = deque[Job]()
        self._on_change = on_change

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Add *job*, which no worker has."""
        job.started = 0.0
        self._jobs.append(job)
        self._on_change()

    def add_claimed(self, jobs: Iterable[Job]) -> None:
        """Add *jobs* that no worker has, in the thread of the workers."""
        self._jobs.extend(jobs)

    def take(self) -> Job | None:
        """Return the next job and start its time; None if there is none at present, or if there are no more."""
        try:
            job = self._jobs.popleft()
        except IndexError:
            return None
        # Started before the check: a job that is not started when the backlog is closed is sent by nobody.
        job.begin()
        if self.is_closed:
            job.started = 0.0
            return None
        return job

    def close(self) -> None:
        """Drop the jobs that no worker has taken; there are no more."""
        self.is_closed = True
        self._on_change()
