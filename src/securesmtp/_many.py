"""Many messages on some threads: begun in order, told in order, and never far ahead of who listens."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from securesmtp._bulk import is_full
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
        died: Whether a connection has died under it: it is sent once more, and not twice.
        told: Has one entry for each job of the run that has its end, and was not waited for.
    """

    index: int
    submission: Submission
    limit: Callable[[], Deadline | None]
    end: SendResult | BaseException | None = None
    overall: Deadline | None = None
    started: float = 0.0
    died: bool = False
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
    """
    The jobs that nobody has taken yet.

    Attributes:
        has_workers: Whether there are threads that wait for more; where there are none, nobody waits.
    """

    def __init__(self) -> None:
        """Be empty, and open."""
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._closed = threading.Event()
        self.has_workers = True

    def put(self, job: Job) -> None:
        """Add *job*."""
        self._queue.put(job)

    def take(self, *, wait: bool) -> Job | None:
        """Return the next job, whose time begins; None when there are no more, or without *wait* none at present."""
        try:
            job = self._queue.get(block=wait and self.has_workers)
        except Empty:
            return None
        if job is None or self._closed.is_set():
            # For the other threads.
            self._queue.put(None)
            return None
        job.begin()
        return job

    def close(self) -> None:
        """Drop what nobody has taken: there are no more."""
        # In this order, so that whoever interrupts it leaves nobody waiting.
        self._queue.put(None)
        self._closed.set()

    def pause(self, seconds: float) -> None:
        """Wait for so many *seconds*, or until it is closed."""
        self._closed.wait(seconds)


def in_order(
    jobs: Iterable[Job | Known], work: Callable[[Backlog], None], workers: int, ahead: int, octets: int = 1 << 30
) -> Iterator[SendResult]:
    """
    Yield what becomes of each of *jobs*, in their order; each of up to so many *workers* does *work* on the backlog.

    The next job is taken from the iterable only while there are fewer than *ahead* that were begun and not told, and,
    beyond one for each worker, fewer than so many *octets* of them. What the iterable raises is raised when everything
    that was begun has been told. Leaving early waits for the jobs that are under way; those that nobody has taken are
    dropped. Where no thread can be started, as at the end of the process, the work is done here.
    """
    begun: deque[Job | Known] = deque()
    told: SimpleQueue[None] = SimpleQueue()
    failures: list[Exception] = []
    threads: list[threading.Thread] = []
    backlog, held = Backlog(), 0
    with _noting(begun):
        try:
            for job in _until_it_raises(jobs, failures):
                begun.append(job)
                held += _octets(job)
                if isinstance(job, Job):
                    job.told = told
                    backlog.put(job)
                    if len(threads) < workers:
                        _start(threads, work, backlog)
                while begun and (is_full(len(begun), held, workers, ahead, octets) or begun[0].end is not None):
                    held -= _octets(begun[0])
                    yield _end(begun, told, work, backlog)
            while begun:
                yield _end(begun, told, work, backlog)
        finally:
            backlog.close()
            # Where the interpreter ends, daemons do not run any more.
            while threads and not sys.is_finalizing():
                with suppress(RuntimeError):  # an interrupt has kept it from being started
                    threads.pop().join()
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


def _end(
    begun: deque[Job | Known], told: SimpleQueue[None], work: Callable[[Backlog], None], backlog: Backlog
) -> SendResult:
    job = begun[0]
    # Not a future for each: its locks were a tenth of what a small message costs (measured).
    while job.end is None or not told.empty():
        if job.end is None and not backlog.has_workers:
            _guarded(work, backlog)
        told.get()
    begun.popleft()
    if isinstance(job.end, BaseException):
        raise job.end
    return job.end


def _octets(job: Job | Known) -> int:
    return job.submission.content.size if isinstance(job, Job) else 0


def _start(threads: list[threading.Thread], work: Callable[[Backlog], None], backlog: Backlog) -> None:
    """Start a thread, if the system and the interpreter let us; those that there are will do."""
    # A daemon: an iterator that was left where it was does not keep the process from its end.
    thread = threading.Thread(target=_guarded, args=(work, backlog), name=f"securesmtp-{len(threads)}", daemon=True)
    backlog.has_workers = True
    # Before it is started: an interrupt may strike behind that, and it is waited for all the same.
    threads.append(thread)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        threads.pop()
        backlog.has_workers = bool(threads)


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
