"""
The task that keeps the ledger of a run of tasks.

How it works: it is one task for all workers, so one commit of the database serves many messages. Each call of the
ledger is made in a thread, because it blocks.
"""

from __future__ import annotations

import threading
from functools import partial as bind
from typing import TYPE_CHECKING, TypeVar, cast

from securesmtp._async_backlog import Wakeup
from securesmtp._bulk.calls import perform
from securesmtp._transport.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._async_workers import Workers
    from securesmtp._bulk.calls import Calls
    from securesmtp._bulk.claims import Claims
    from securesmtp._bulk.jobs import Job
    from securesmtp._transport.event_loop import EventLoop

T = TypeVar("T")


class Keeper:
    """
    The task that keeps the ledger of a run: it claims jobs when there are workers for them, and writes their ends.

    Attributes:
        claims: The messages of the run in its ledger.
    """

    def __init__(self, claims: Claims) -> None:
        """Keep *claims*."""
        self.claims = claims
        self._change = Wakeup()
        # Is held by a thread that makes a call; such a thread outlives a task that is cancelled.
        self._lock, self._has_ended = threading.Lock(), False
        self._workers: Workers | None = None
        self._add: Callable[[Job], object] = _do_nothing_with

    def start(self, workers: Workers, add: Callable[[Job], object]) -> bool:
        """Note that there is a job for *workers*, to which *add* gives it; return whether the task is to be started."""
        is_first = self._workers is None
        self._workers, self._add = workers, add
        self.claims.on_end = workers.backlog.on_change = self._change.announce
        self._change.announce()
        return is_first

    async def run(self) -> None:
        """Keep the ledger until the run is over."""
        workers = cast("Workers", self._workers)
        try:
            # It is one of those that run.
            while workers.running > 1 or not workers.backlog.is_closed:
                await self._advance(workers)
            await self._perform(workers, self.claims.release())
        except Exception as error:  # noqa: BLE001 -- raised where the results are read
            workers.fault = workers.fault or error
        finally:
            # The loop ends and has cancelled this task: there is nobody else to do it, after the call that has begun.
            workers.backlog.close()
            with self._lock:
                self._has_ended = True
            perform(self.claims.release())

    async def _advance(self, workers: Workers) -> None:
        claims, backlog = self.claims, workers.backlog
        free, held = backlog.idle + workers.most - workers.started, len(backlog)
        if backlog.is_closed and claims.has_ends:
            await self._perform(workers, claims.flush())
        elif not backlog.is_closed and claims.has_work(free, held):
            for job in await self._perform(workers, claims.advance(free, held)):
                self._add(job)
        else:
            await self._change.wait()

    async def _perform(self, workers: Workers, steps: Calls[T]) -> T:
        """Make the calls of *steps* in a thread, one after the other, and return what these return."""
        threads, result, error = Threads(cast("EventLoop", workers.loop), 1), cast("object", None), None
        try:
            while True:
                call = steps.send(result) if error is None else steps.throw(error)
                result, error = None, None
                try:
                    result = await threads.run(bind(self._call, call), "securesmtp: ledger")
                except Exception as raised:  # noqa: BLE001 -- the steps decide what it means
                    error = raised
        except StopIteration as stop:
            return cast("T", stop.value)

    def _call(self, call: Callable[[], object]) -> object:
        """Make a *call* of the ledger, unless nobody waits for it any more: what it claims would have no end."""
        with self._lock:
            return None if self._has_ended else call()


def _do_nothing_with(_: Job) -> None:
    """Take no job before the start."""
