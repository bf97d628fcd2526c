"""Many messages on some threads: begun in order, told in order, and never far ahead of who listens."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from securesmtp._shown import escape
from securesmtp._values import SendResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from securesmtp._protocol.message import Submission
    from securesmtp._transport.link import Deadline


@dataclass(slots=True, eq=False)
class Job:
    """
    One message of a run.

    Attributes:
        index: Which one it is.
        submission: The message.
        limit: Makes its deadline.
        end: What became of it, or what is to be raised where it is waited for; None until then.
        overall: Its deadline, which runs from when its sending begins.
        started: When that was.
        told: Has one entry for each job of the run that has its end, and was not waited for.
    """

    index: int
    submission: Submission
    limit: Callable[[], Deadline | None]
    end: SendResult | BaseException | None = None
    overall: Deadline | None = None
    started: float = 0.0
    told: SimpleQueue[None] = field(default_factory=SimpleQueue)

    def begin(self) -> None:
        """Let its time run."""
        self.started, self.overall = monotonic(), self.limit()

    def finish(self, end: SendResult | BaseException) -> None:
        """Let who waits for it know its *end*."""
        self.end = end
        self.told.put(None)


@dataclass(frozen=True, slots=True)
class Known:
    """A message of whose end nothing is left to be found out."""

    end: SendResult


class Backlog:
    """The jobs that nobody has taken yet."""

    def __init__(self) -> None:
        """Be empty, and open."""
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._closed = False

    def put(self, job: Job) -> None:
        """Add *job*."""
        self._queue.put(job)

    def take(self, *, wait: bool) -> Job | None:
        """Return the next job, whose time begins; None when there are no more, or without *wait* none at present."""
        try:
            job = self._queue.get(block=wait)
        except Empty:
            return None
        if job is None or self._closed:
            # For the other threads.
            self._queue.put(None)
            return None
        job.begin()
        return job

    def close(self) -> None:
        """Drop what nobody has taken: there are no more."""
        # In this order, so that whoever interrupts it leaves nobody waiting.
        self._queue.put(None)
        self._closed = True


def in_order(
    jobs: Iterable[Job | Known], work: Callable[[Backlog], None], workers: int, ahead: int
) -> Iterator[SendResult]:
    """
    Yield what becomes of each of *jobs*, in their order; each of up to so many *workers* does *work* on the backlog.

    The next job is taken from the iterable only when there are fewer than *ahead* that were begun and not told. What
    the iterable raises is raised when everything that was begun has been told. Leaving early waits for the jobs that
    are under way; those that nobody has taken are dropped.
    """
    begun: deque[Job | Known] = deque()
    told: SimpleQueue[None] = SimpleQueue()
    failures: list[Exception] = []
    backlog, started = Backlog(), 0
    with _noting(begun), ThreadPoolExecutor(workers, "securesmtp") as executor:
        try:
            for job in _until_it_raises(jobs, failures):
                begun.append(job)
                if isinstance(job, Job):
                    job.told = told
                    backlog.put(job)
                    if started < workers:
                        executor.submit(_guarded, work, backlog)
                        started += 1
                while begun and (len(begun) >= ahead or begun[0].end is not None):
                    yield _end(begun, told)
            while begun:
                yield _end(begun, told)
        finally:
            backlog.close()
    for failure in failures:
        raise failure


@contextmanager
def _noting(begun: Iterable[Job | Known]) -> Iterator[None]:
    """Note on what interrupts a run the results that nobody has been told, when all that was begun has its end."""
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as interrupt:
        ends = [job.end for job in begun if isinstance(job.end, SendResult)]
        for end in ends:
            which = escape(str(end.message_id), 200)
            interrupt.add_note(f"securesmtp: result {end.index}, message {which}: {end.outcome}")
        raise


def _end(begun: deque[Job | Known], told: SimpleQueue[None]) -> SendResult:
    job = begun[0]
    # Not a future for each: its locks were a tenth of what a small message costs (measured).
    while job.end is None or not told.empty():
        told.get()
    begun.popleft()
    if isinstance(job.end, BaseException):
        raise job.end
    return job.end


def _until_it_raises(jobs: Iterable[Job | Known], failures: list[Exception]) -> Iterator[Job | Known]:
    try:
        yield from jobs
    except Exception as error:  # noqa: BLE001 -- raised when nothing of what was begun is lost
        failures.append(error)


def _guarded(work: Callable[[Backlog], None], backlog: Backlog) -> None:
    try:
        work(backlog)
    except BaseException as error:  # noqa: BLE001 -- raised where the results are waited for, for ever otherwise
        while (job := backlog.take(wait=True)) is not None:
            job.finish(error)
