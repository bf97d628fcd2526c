"""
The results of a run over worker tasks: an async iterator in the order of the messages, readable after its end too.

How it works: the caller's task reads messages inside `__anext__`, puts each into the backlog, and returns the result of
the oldest. The workers are tasks of the event loop itself, because no group may be held while the caller's own code
runs. Whatever ends a run or a worker, the state is in `Progress`: `AsyncResults` finds there what was not returned yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial as bind
from typing import TYPE_CHECKING, Self, TypeVar, cast

from securesmtp._async_keeper import Keeper
from securesmtp._async_workers import Workers
from securesmtp._bulk.jobs import AnyJob, Job
from securesmtp._bulk.read_ahead import ReadAhead, octets, result_without_end
from securesmtp._bulk.rules import is_full
from securesmtp._interrupts import raise_if_interrupt
from securesmtp._transport.event_loop import is_cancellation
from securesmtp._values import SendResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from securesmtp._async_backlog import AsyncBacklog
    from securesmtp._bulk.claims import Claims

T = TypeVar("T")


@dataclass(slots=True)
class Progress(ReadAhead):
    """
    The state of a run: its jobs in order, its workers, and how far its results were returned.

    Attributes:
        jobs: The jobs that were not read yet.
        workers: The tasks that send them.
        has_enough: Tells whether, with so many jobs of so many octets, no more are read for now.
        held: How many octets the jobs have whose result was not returned.
        is_read: Whether there are no more jobs to read.
        has_ended: Whether no more are read.
        is_awaited: Whether a task waits for a result.
    """

    jobs: AsyncIterator[AnyJob] = field(kw_only=True)
    workers: Workers = field(kw_only=True)
    has_enough: Callable[[int, int], bool] = field(kw_only=True)
    held: int = 0
    is_read: bool = False
    has_ended: bool = False
    is_awaited: bool = False

    async def next_result(self) -> SendResult:
        """
        Return the first result that was not returned.

        Raises:
            StopAsyncIteration: There is none.
        """
        while not self.has_ended:
            oldest = self.oldest()
            if oldest is None:
                self.has_ended = self.is_read
            elif self.is_read or oldest.end is not None or self.has_enough(len(self.pending), self.held):
                return await self._wait_for(oldest)
            if not self.is_read:
                await self._read()
        await self.workers.stop()
        job = self.oldest()
        if job is not None:
            return self._result(job)
        self.workers.check_fault()
        if self.failures:
            raise self.failures.pop()
        raise StopAsyncIteration

    async def stop(self) -> None:
        """End the run when the messages that are being sent are finished."""
        self.has_ended = True
        await self.workers.stop()

    async def stop_after(self, error: BaseException) -> None:
        """End the run because of *error*, at once if that came from outside; add to it the results that it kept."""
        self.has_ended = True
        if isinstance(error, Exception):
            await self.workers.stop()
        else:
            await self.workers.abort()
        self.workers.fault = None
        for job in self.pending:
            if job.index > self.last_yielded and isinstance(job, Job) and job.started:
                self._result(job)
        self.add_notes(error)

    def abandon(self) -> None:
        """Have the workers end when they have finished what they are sending; nobody reads the results."""
        self.workers.backlog.close()
        for job in self.pending:
            if isinstance(job, Job) and not job.started:
                job.submission.content.close()

    async def _read(self) -> None:
        if self.failures:
            # The ledger has failed.
            self.is_read = True
            return
        try:
            job = await anext(self.jobs)
        except StopAsyncIteration:
            self.is_read = True
        except Exception as error:  # noqa: BLE001 -- raised when nothing of what was started is lost
            raise_if_interrupt(error)
            # That of a ledger is noted already.
            if error not in self.failures:
                self.failures.append(error)
            self.is_read = True
        else:
            self.pending.append(job)
            self.held += octets(job)
            if isinstance(job, Job):
                self.workers.submit(job)

    async def _wait_for(self, job: AnyJob) -> SendResult:
        if job.end is None or not isinstance(job, Job):
            await self.workers.wait_for(job)
        self.workers.check_released(job)
        self.held -= octets(job)
        return self._result(job)

    def _result(self, job: AnyJob) -> SendResult:
        if isinstance(job.end, SendResult):
            return job.end
        if isinstance(job, Job) and (job.end is None or self.has_ended or is_cancellation(job.end)):
            job.end = result = result_without_end(job)
            return result
        # The run ends here. A repeat has an end, because the job that it repeats was read before.
        raise cast("BaseException", job.end)


class AsyncResults:
    """
    The results of one run, in the order of its messages: an async iterator that can be read on after a cancellation.

    ``aclose()``, a ``break`` out of an ``async with`` block, and an error end the run: messages that are being sent are
    finished, and the others are not sent. A cancellation ends it at once. The results can still be read, so none is
    lost.
    """

    def __init__(self, progress: Progress) -> None:
        """Return the results of the run; *progress* does not refer to this object, so it can be garbage-collected."""
        self._progress = progress

    def __aiter__(self) -> Self:
        """Return it."""
        return self

    async def __anext__(self) -> SendResult:
        """
        Return the next result.

        Raises:
            RuntimeError: Another task waits for it.
        """
        progress = self._progress
        if progress.is_awaited:
            message = "another task is waiting for the next result"
            raise RuntimeError(message)
        progress.workers.check_loop()
        progress.is_awaited = True
        try:
            result = await self._until_error(progress.next_result())
        finally:
            progress.is_awaited = False
        progress.last_yielded = result.index
        return result

    async def aclose(self) -> None:
        """Send only what is being sent, and wait for that."""
        self._progress.workers.check_loop()
        await self._until_error(self._progress.stop())

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; if the block was cancelled, cancel also what is being sent."""
        self._progress.workers.check_loop()
        if error is None or isinstance(error, Exception | GeneratorExit):
            await self.aclose()
        else:
            await self._progress.stop_after(error)

    def __del__(self) -> None:
        """Have the workers end if nobody has closed it."""
        progress: Progress | None = self.__dict__.get("_progress")
        if progress is not None and not progress.has_ended and progress.workers.loop is not None:
            # Perhaps in another thread, and perhaps the loop is closed.
            progress.workers.loop.call_soon(progress.abandon)

    async def _until_error(self, action: Awaitable[T]) -> T:
        """Wait for *action*; an error, which may come from outside, ends the run."""
        try:
            try:
                return await action
            except Exception as error:
                await self._progress.stop_after(error)
                raise
        except BaseException as interrupt:
            if not isinstance(interrupt, Exception | GeneratorExit):
                await self._progress.stop_after(interrupt)
            raise


def in_order(  # noqa: PLR0913, PLR0917 -- what a run is made of
    jobs: AsyncIterator[AnyJob],
    worker: Callable[[AsyncBacklog], Awaitable[None]],
    workers: int,
    ahead: int,
    octets: int = 1 << 30,
    claims: Claims | None = None,
) -> AsyncResults:
    """
    Return the result of each of *jobs*, in their order; up to so many *workers* run *worker* on the backlog.

    Nothing is read and no worker is started before the first result is asked for. The next job is read only while fewer
    than *ahead* are pending and, beyond one for each worker, fewer than so many *octets* of them. What the iterator of
    the jobs raises is raised when the results of all jobs before it were returned. With *claims*, a job is sent only if
    its claim in the ledger succeeds.

    *worker* must not go on after a cancellation: it gives its job an end and raises the cancellation again.
    """
    has_enough = bind(is_full, workers=workers, ahead=ahead, octets=octets)
    started = Workers(worker, workers, keeper=None if claims is None else Keeper(claims))
    failures = [] if claims is None else claims.failures
    return AsyncResults(Progress(jobs=jobs, workers=started, has_enough=has_enough, failures=failures))
