"""The messages of an asynchronous run that no worker has taken yet, and what its tasks wait for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from securesmtp._bulk.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Wakeup:
    """Wakes all tasks that wait for a change; each of them then looks for itself what has changed."""

    def __init__(self) -> None:
        """Start with nobody who waits."""
        self._event: anyio.Event | None = None

    def announce(self) -> None:
        """Wake the tasks that wait now."""
        # One event for all of them: if one is cancelled when it has just been woken, no other one loses its wake-up.
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Wait for the next wake-up."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class AsyncBacklog:
    """
    The jobs that no worker has taken yet.

    Attributes:
        is_closed: Whether no more jobs are taken from it.
        on_change: Is called when a worker waits for a job, and at the end.
    """

    def __init__(self) -> None:
        """Start empty and open."""
        self.is_closed: bool = False
        self.on_change: Callable[[], object] = _do_nothing
        self._jobs = deque[Job]()
        # One event for each worker that waits: one for all would wake a hundred of them for each job (measured).
        self._idle = list[anyio.Event]()
        self._closing = Wakeup()
        # Of workers that have no job yet.
        self._waits = list[anyio.CancelScope]()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._jobs)

    @property
    def idle(self) -> int:
        """How many workers wait for a job."""
        return len(self._idle)

    def put(self, job: Job) -> None:
        """Add *job*, which no worker has."""
        job.started = 0.0
        if not self.is_closed:
            self._jobs.append(job)
            self._wake_one()

    def take(self) -> Job | None:
        """Return the next job and start its time; None if there is none at present, or if there are no more."""
        if not self._jobs:
            return None
        job = self._jobs.popleft()
        job.begin()
        return job

    async def next(self) -> Job | None:
        """Wait for the next job, start its time and return it; None if there are no more."""
        return self.take() if await self.wait() else None

    async def wait(self) -> bool:
        """Wait for the next job; return whether there is one, because there may be no more."""
        while not self._jobs and not self.is_closed:
            event = anyio.Event()
            self._idle.append(event)
            self.on_change()
            try:
                await event.wait()
            except BaseException:
                if event in self._idle:
                    self._idle.remove(event)
                else:
                    # It was woken for a job, and does not take it.
                    self._wake_one()
                raise
        return bool(self._jobs)

    async def until_closed(self, action: Callable[[], Awaitable[bool]]) -> bool:
        """Return what *action* returns; False if it is closed before."""
        with anyio.CancelScope() as scope:
            self._waits.append(scope)
            try:
                return not self.is_closed and await action()
            finally:
                self._waits.remove(scope)
        return False

    def close(self) -> None:
        """Drop the jobs that no worker has taken; there are no more."""
        self.is_closed = True
        self._jobs.clear()
        while self._idle:
            self._idle.pop().set()
        self._closing.announce()
        for scope in self._waits:
            scope.cancel()
        self.on_change()

    async def pause(self, seconds: float) -> None:
        """Wait for so many *seconds*, or until it is closed."""
        with anyio.move_on_after(seconds):
            while not self.is_closed:
                await self._closing.wait()

    def _wake_one(self) -> None:
        if self._jobs and self._idle:
            self._idle.pop().set()


def _do_nothing() -> None:
    """Nobody waits for a change."""
