"""
Worker tasks for the messages of a run: started on demand, in the event loop itself.

How it works: no group of tasks may be held while the caller's own code runs, so the workers are in none. Each has a
cancel scope in its own task, by which a reader that is cancelled ends it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial as bind
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint

from securesmtp._bulk.jobs import AnyJob, Job
from securesmtp._transport.event_loop import EventLoop, current_loop, is_cancellation
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from securesmtp._bulk.claims import Claims


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


class Keeper(Protocol):
    """Keeps the ledger of a run, in a task of its own (`_async_keeper`)."""

    claims: Claims

    def start(self, workers: Workers, add: Callable[[Job], object]) -> bool:
        """Note that there is a job for *workers*, to which *add* gives it; return whether the task is to be started."""

    async def run(self) -> None:
        """Keep the ledger until the run is over."""


@dataclass(slots=True)
class Workers:
    """
    The tasks that send the messages of a run.

    Attributes:
        worker: What each does with the backlog.
        most: How many there may be.
        backlog: The jobs that none has taken.
        loop: The event loop that they run in; None before the first one.
        started: How many were started.
        running: How many of them have not ended.
        scopes: The cancel scope of each that runs.
        fault: What a worker has raised, to be raised where the results are read.
        awaited: The job that the reader waits for.
        change: Is announced when that has its end, and when a worker has ended.
        keeper: Keeps the ledger of the run; None without one.
    """

    worker: Callable[[AsyncBacklog], Awaitable[None]]
    most: int
    backlog: AsyncBacklog = field(default_factory=AsyncBacklog)
    loop: EventLoop | None = None
    started: int = 0
    running: int = 0
    scopes: dict[int, anyio.CancelScope] = field(default_factory=dict)
    fault: BaseException | None = None
    awaited: AnyJob | None = None
    change: Wakeup = field(default_factory=Wakeup)
    keeper: Keeper | None = None

    def check_loop(self) -> None:
        """
        Check that the calling task can wait for them.

        Raises:
            ConfigurationError: They run in another event loop.
        """
        if self.loop is not None and not self.loop.is_current and self.running:
            if not self.loop.is_closed:
                message = "the results belong to another event loop"
                raise ConfigurationError(message, hint="read them where the first of them was read")
            # They never end, and have no successors.
            self.running = 0
            self.scopes.clear()
            self.backlog.close()

    def submit(self, job: Job) -> None:
        """Have *job* sent, by a further worker if there may be one."""
        job.notify = self._note_end_of_job
        if self.keeper is None:
            self._add(job)
            return
        self.loop = self.loop or current_loop()
        self.keeper.claims.waiting.append(job)
        if self.keeper.start(self, self._add):
            self.running += 1
            self.loop.spawn(self.keeper.run, "securesmtp-ledger", self._note_end)

    def _add(self, job: Job) -> None:
        self.backlog.put(job)
        if self.started < self.most and not self.backlog.is_closed:
            self.loop = self.loop or current_loop()
            self.started += 1
            number = self.started
            self.loop.spawn(bind(self._run, number), f"securesmtp-{number}", bind(self._note_end_of_worker, number))
            self.running += 1

    async def wait_for(self, job: AnyJob) -> None:
        """
        Wait until *job* has its end, or will have none because there are no more workers.

        Raises:
            BaseException: What a worker has raised.
        """
        self.awaited = job
        try:
            if job.end is not None or not self.running:
                # However many such messages there are, other tasks run too.
                await checkpoint()
            while job.end is None and self.running and self.fault is None:
                await self.change.wait()
        finally:
            # It holds a message.
            self.awaited = None
        if job.end is None:
            self.check_fault()

    def check_released(self, job: AnyJob) -> None:
        """Raise what has ended the run, if *job* got its end from the ledger's keeper because of that."""
        if self.keeper is not None and isinstance(job, Job) and job.key in self.keeper.claims.released:
            self.check_fault()

    def check_fault(self) -> None:
        """
        Check that no worker has raised anything.

        Raises:
            BaseException: It did.
        """
        if self.fault is not None:
            raise self.fault

    async def stop(self) -> None:
        """Drop the backlog, and wait for the messages that are being sent."""
        self.backlog.close()
        while self.running:
            await self.change.wait()

    async def abort(self) -> None:
        """Drop the backlog, and cancel what is being sent."""
        self.backlog.close()
        for scope in tuple(self.scopes.values()):
            scope.cancel()
        # Not for long: nothing is waited for over a connection that has ended.
        with anyio.CancelScope(shield=True):
            await self.stop()

    async def _run(self, number: int) -> None:
        try:
            with anyio.CancelScope() as self.scopes[number]:
                await self._work()
        except BaseException:
            self._note_cancellation()
            raise

    async def _work(self) -> None:
        try:
            await self.worker(self.backlog)
        except BaseException as error:
            if is_cancellation(error):
                raise
            self.fault = self.fault or error
            self.backlog.close()

    def _note_cancellation(self) -> None:
        # Tasks of the loop were cancelled, one by one or at its end: no other worker sends the rest.
        self.backlog.close()

    def _note_end_of_job(self) -> None:
        # The reader is not woken for each message that overtakes the one it waits for.
        if self.awaited is not None and self.awaited.end is not None:
            self.change.announce()

    def _note_end(self) -> None:
        self.running -= 1
        self.change.announce()
        self.backlog.on_change()

    def _note_end_of_worker(self, number: int) -> None:
        if self.scopes.pop(number, None) is None:
            # It was cancelled before it began.
            self._note_cancellation()
        self._note_end()
