"""
The results of a run, in the order of its messages, never far ahead of the reader, and readable after its end.

How it works: the caller's thread reads messages, puts each into the backlog, and yields the result of the oldest. An
interrupt may strike the caller's thread at any line. So the state of a run is in `Progress`, not in its generator: when
that has ended, `Results` finds there what was not yielded yet.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial as bind
from typing import TYPE_CHECKING, Self, cast

from securesmtp._bulk.jobs import Job
from securesmtp._bulk.read_ahead import ReadAhead, octets, result_without_end
from securesmtp._bulk.rules import is_full
from securesmtp._interrupts import raise_if_interrupt
from securesmtp._values import SendResult
from securesmtp._workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from securesmtp._bulk.claims import Claims
    from securesmtp._bulk.jobs import AnyJob
    from securesmtp._transport.channel import Steps
    from securesmtp._transport.task import Task


@dataclass(slots=True)
class Progress(ReadAhead):
    """
    The state of a run: its jobs in order, its workers, and how far its results were yielded.

    Attributes:
        workers: Send the jobs.
    """

    workers: Workers = field(kw_only=True)

    def stop(self) -> None:
        """Drop the backlog, and wait for what is being sent. After an interrupt, the next call continues to wait."""
        self.workers.stop(self.pending)

    def next_result(self) -> SendResult:
        """
        Return the first result that was not yielded, when the run is over.

        Raises:
            StopIteration: There is none, or nothing more will be known.
        """
        self.stop()
        job = self.oldest()
        if job is None and self.failures:
            raise self.failures.pop()
        if job is None or (self.workers.thread is not None and job.end is None):
            raise StopIteration
        if not isinstance(job.end, SendResult) and isinstance(job, Job):
            job.end = result_without_end(job)
        return cast("SendResult", job.end)


class Results:
    """
    The results of one run, in the order of its messages: an iterator that can be read on after an interrupt.

    An interrupt in it, and ``close()``, end the run as they end a generator: messages that are being sent are finished,
    and the others are not sent. The results of both can still be read, so none is lost.
    """

    def __init__(self, run: Generator[SendResult], progress: Progress) -> None:
        """Yield the results of *run*; neither argument refers to this object, so it can be garbage-collected."""
        self._run, self._progress = run, progress

    def __iter__(self) -> Self:
        """Return it."""
        return self

    def __next__(self) -> SendResult:
        """Return the next result."""
        result = next(self._run, None) or self._progress.next_result()
        index = result.index
        # Last, and by an assignment alone: an interrupt strikes before it, and the next call returns the same result.
        self._progress.last_yielded = index
        return result

    def close(self) -> None:
        """Send only what is being sent, and wait for that."""
        self._run.close()


def in_order(  # noqa: PLR0913, PLR0917 -- what a run is made of
    jobs: Iterable[AnyJob],
    work: Callable[[Workers, Task], Steps[None]],
    most: int,
    ahead: int,
    octets: int = 1 << 30,
    claims: Claims | None = None,
) -> Results:
    """
    Return the result of each of *jobs*, in their order; up to *most* workers do *work*.

    The next job is read from the iterable only while fewer than *ahead* are pending and, beyond one for each worker,
    fewer than so many *octets* of them. With *claims*, a job is sent only if its claim in the ledger succeeds. What the
    iterable raises is raised when the results of all jobs before it were yielded. Leaving early waits for the jobs that
    are being sent and drops the others.
    """
    progress = Progress(workers=Workers(work, most, claims), failures=[] if claims is None else claims.failures)
    has_enough = bind(is_full, workers=most, ahead=ahead, octets=octets)
    return Results(_run(jobs, progress, has_enough), progress)


def _run(jobs: Iterable[AnyJob], progress: Progress, has_enough: Callable[[int, int], bool]) -> Generator[SendResult]:
    """Yield the result of each of *jobs* when it has its end."""
    pending, workers, held = progress.pending, progress.workers, 0
    with _adding_notes(progress):
        try:
            for job in _until_it_raises(jobs, progress.failures):
                pending.append(job)
                held += octets(job)
                if isinstance(job, Job):
                    workers.submit(job)
                while (oldest := progress.oldest()) and (has_enough(len(pending), held) or oldest.end is not None):
                    held -= octets(oldest)
                    yield _result(oldest, workers)
            while (oldest := progress.oldest()) is not None:
                yield _result(oldest, workers)
        finally:
            progress.stop()


def _result(job: AnyJob, workers: Workers) -> SendResult:
    end = workers.wait_for(job)
    if isinstance(end, BaseException):
        # The run ends here.
        raise end
    return end


@contextmanager
def _adding_notes(progress: Progress) -> Iterator[None]:
    """Add to an interrupt the results that were not yielded, when all started jobs have their end."""
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as interrupt:
        progress.add_notes(interrupt)
        raise


def _until_it_raises(jobs: Iterable[AnyJob], failures: list[Exception]) -> Iterator[AnyJob]:
    try:
        yield from jobs
    except Exception as error:  # noqa: BLE001 -- raised when nothing of what was started is lost
        raise_if_interrupt(error)
        # That of a ledger is noted already.
        if error not in failures:
            failures.append(error)
