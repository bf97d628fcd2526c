"""
Worker tasks for the messages of a run: started on demand, in the event loop itself.

How it works: no group of tasks may be held while the caller's own code runs, so the workers are in none. Each has a
cancel scope in its own task, by which a reader that is cancelled ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial as bind
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.lowlevel import checkpoint

from securesmtp._async_backlog import AsyncBacklog, Wakeup
from securesmtp._bulk.jobs import AnyJob, Job
from securesmtp._transport.event_loop import EventLoop, current_loop, is_cancellation
from securesmtp.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from securesmtp._bulk.claims import Claims


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
