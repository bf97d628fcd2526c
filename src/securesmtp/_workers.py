"""
Worker threads for the messages of a run: started in order, results in order, never far ahead of the reader.

How it works: the caller's thread reads messages, puts each into the backlog, and yields the result of the oldest. An
interrupt may strike the caller's thread at any line. So the state of a run is in `Progress`, not in its generator: when
that has ended, `Results` finds there what was not yielded yet.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial as bind
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Self

from securesmtp._bulk.jobs import Ending, InvalidInput, Job
from securesmtp._bulk.read_ahead import ReadAhead, octets, result_without_end
from securesmtp._bulk.rules import is_full
from securesmtp._interrupts import raise_if_interrupt
from securesmtp._values import SendResult

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

# How often a thread whose start was interrupted is checked for being done, in seconds.
_POLL_INTERVAL = 0.01


class Backlog:
    """
    The jobs that no worker has taken yet.

    Attributes:
        has_workers: Whether there are worker threads. Without any, `take` does not wait, since nothing would come.
    """

    def __init__(self) -> None:
        """Start empty and open."""
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        # Not an event: an interrupt in `set` can leave its lock held (measured), and a worker would wait for that.
        self._is_closed = False
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self.has_workers = True

    def put(self, job: Job) -> None:
        """Add *job*, which no worker has."""
        job.started = 0.0
        self._queue.put(job)

    def take(self, *, wait: bool) -> Job | None:
        """Return the next job and start its time; None if there are no more, or without *wait* none at present."""
        try:
            job = self._queue.get(block=wait and self.has_workers)
        except Empty:
            return None
        # Started before the check: a job that is not started when the backlog is closed is sent by nobody.
        if job is not None:
            job.begin()
        if job is None or self._is_closed:
            if job is not None:
                job.started = 0.0
            # For the other threads.
            self._queue.put(None)
            return None
        return job

    def close(self) -> None:
        """Drop the jobs that no worker has taken; there are no more."""
        # In this order, an interrupt in between leaves no worker waiting.
        self._queue.put(None)
        self._is_closed = True
        self._wakeups.put(None)

    def pause(self, seconds: float) -> None:
        """Wait for so many *seconds*, or until it is closed."""
        with suppress(Empty):
            self._wakeups.get(timeout=seconds)
            # For the other threads.
            self._wakeups.put(None)


@dataclass(slots=True)
class Progress(ReadAhead):
    """
    The state of a run: its jobs in order, its threads, and how far its results were yielded.

    Attributes:
        backlog: The jobs that no worker has taken.
        threads: The workers.
        ends: One entry for each job that has ended and was not waited for.
    """

    backlog: Backlog = field(default_factory=Backlog)
    threads: list[threading.Thread] = field(default_factory=list)
    ends: SimpleQueue[None] = field(default_factory=SimpleQueue)

    def stop(self) -> None:
        """Drop the backlog, and wait for the threads. After an interrupt, the next call continues to wait."""
        self.backlog.close()
        # At the end of the interpreter, daemon threads do not run any more.
        while self.threads and not sys.is_finalizing():
            try:
                self.threads[-1].join()
            except RuntimeError as error:
                raise_if_interrupt(error)
                # Its start was interrupted, so it may run or not. It takes no more jobs, but may have one.
                if any(isinstance(job, Job) and job.started and job.end is None for job in self.pending):
                    with suppress(Empty):
                        self.ends.get(timeout=_POLL_INTERVAL)
                    continue
            self.threads.pop()

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
        if job is None or (self.threads and job.end is None):
            raise StopIteration
        if isinstance(job.end, SendResult):
            return job.end
        job.end = result = result_without_end(job)
        return result


class Results:
    """
    The results of one run, in the order of its messages: an iterator that can be read on after an interrupt.

    An interrupt in it, and `close`, end the run as they end a generator: messages that are being sent are finished, and
    the others are not sent. The results of both can still be read, so none is lost.
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


def in_order(
    jobs: Iterable[Job | InvalidInput],
    worker: Callable[[Backlog], None],
    workers: int,
    ahead: int,
    octets: int = 1 << 30,
) -> Results:
    """
    Return the result of each of *jobs*, in their order; up to so many *workers* run *worker* on the backlog.

    The next job is read from the iterable only while fewer than *ahead* are pending and, beyond one for each worker,
    fewer than so many *octets* of them. What the iterable raises is raised when the results of all jobs before it were
    yielded. Leaving early waits for the jobs that are being sent and drops the others. If no thread can be started, as
    at the end of the process, the worker runs in this thread.
    """
    progress = Progress()
    has_enough = bind(is_full, workers=workers, ahead=ahead, octets=octets)
    return Results(_run(jobs, progress, worker, workers, has_enough), progress)


def _run(
    jobs: Iterable[Job | InvalidInput],
    progress: Progress,
    worker: Callable[[Backlog], None],
    workers: int,
    has_enough: Callable[[int, int], bool],
) -> Generator[SendResult]:
    """Yield the result of each of *jobs* when it has its end."""
    pending, backlog, held = progress.pending, progress.backlog, 0
    notify = bind(progress.ends.put, None)
    with _adding_notes(progress):
        try:
            for job in _until_it_raises(jobs, progress.failures):
                pending.append(job)
                held += octets(job)
                if isinstance(job, Job):
                    job.notify = notify
                    backlog.put(job)
                    if len(progress.threads) < workers:
                        _start(progress.threads, worker, backlog)
                while (oldest := progress.oldest()) and (has_enough(len(pending), held) or oldest.end is not None):
                    held -= octets(oldest)
                    yield _wait_for(oldest, progress, worker)
            while (oldest := progress.oldest()) is not None:
                yield _wait_for(oldest, progress, worker)
        finally:
            progress.stop()


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


def _wait_for(job: Job | InvalidInput, progress: Progress, worker: Callable[[Backlog], None]) -> SendResult:
    # Not a future for each job: its locks took a tenth of the time of a small message (measured).
    while (end := job.end) is None or not progress.ends.empty():
        if end is None and not progress.backlog.has_workers:
            # Nothing is caught: an interrupt here is one of the caller's own thread.
            worker(progress.backlog)
            if isinstance(job, Job) and job.end is None:
                # An interrupt that ended a connection struck when it had just been taken, or reported.
                job.end = result_without_end(job)
                continue
        progress.ends.get()
    if isinstance(end, BaseException):
        # The run ends here.
        raise end
    return end


def _start(threads: list[threading.Thread], worker: Callable[[Backlog], None], backlog: Backlog) -> None:
    """Start a thread if the system and the interpreter allow it; otherwise the running ones do the work."""
    # A daemon: an iterator that is never read to its end does not keep the process alive.
    thread = threading.Thread(
        target=_run_worker, args=(worker, backlog), name=f"securesmtp-{len(threads)}", daemon=True
    )
    backlog.has_workers = True
    # Before it is started: an interrupt may strike right after that, and it is waited for all the same.
    threads.append(thread)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise_if_interrupt(error)
        threads.pop()
        backlog.has_workers = bool(threads)


def _until_it_raises(jobs: Iterable[Job | InvalidInput], failures: list[Exception]) -> Iterator[Job | InvalidInput]:
    try:
        yield from jobs
    except Exception as error:  # noqa: BLE001 -- raised when nothing of what was started is lost
        raise_if_interrupt(error)
        failures.append(error)


def _run_worker(worker: Callable[[Backlog], None], backlog: Backlog) -> None:
    with Ending[None]() as ending:
        worker(backlog)
        ending.end = None
    if isinstance(ending.end, BaseException):
        # Raised where the results are read, which would wait for ever otherwise.
        while (job := backlog.take(wait=True)) is not None:
            job.started = 0.0
            job.fail(ending.end)
