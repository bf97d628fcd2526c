"""Many messages on some threads: begun in order, told in order, and never far ahead of who listens."""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial as bind
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Self

from securesmtp._bulk import drop_frames, is_full
from securesmtp._shown import escape
from securesmtp._values import SendResult, Stage
from securesmtp.errors import ConnectError, OutcomeUnknownError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from securesmtp._protocol.message import Submission
    from securesmtp._transport.deadline import Deadline

# How often it is looked whether a thread whose start was interrupted is done, in seconds.
_LOOK_AGAIN = 0.01


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
        started: When that was; 0 while nobody has it.
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

    @property
    def index(self) -> int:
        """Which one it is."""
        return self.end.index


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
        """Add *job*, which nobody has."""
        job.started = 0.0
        self._queue.put(job)

    def take(self, *, wait: bool) -> Job | None:
        """Return the next job, whose time begins; None when there are no more, or without *wait* none at present."""
        try:
            job = self._queue.get(block=wait and self.has_workers)
        except Empty:
            return None
        # Begun first, and looked at then: what is not begun when it is closed, nobody sends.
        if job is not None:
            job.begin()
        if job is None or self._closed.is_set():
            if job is not None:
                job.started = 0.0
            # For the other threads.
            self._queue.put(None)
            return None
        return job

    def close(self) -> None:
        """Drop what nobody has taken: there are no more."""
        # In this order, so that whoever interrupts it leaves nobody waiting.
        self._queue.put(None)
        self._closed.set()

    def pause(self, seconds: float) -> None:
        """Wait for so many *seconds*, or until it is closed."""
        self._closed.wait(seconds)


class Results:
    """
    The results of one run, in the order of its messages: an iterator that can be read on when it was interrupted.

    An interrupt in it, and `close`, end the run as they end a generator: what is under way is sent to its end, and what
    nobody has begun is not sent. Here the results of both can be read afterwards, so none is lost.
    """

    def __init__(self, run: Generator[Job | Known], line: Line) -> None:
        """Tell what *run* finds out of those in *line*; nothing here is referred to by it, so it ends with this."""
        self._run, self._line = run, line

    def __iter__(self) -> Self:
        """Return it."""
        return self

    def __next__(self) -> SendResult:
        """Return the next result."""
        job = next(self._run, None) or self._line.left_over()
        index, end = job.index, job.end
        assert isinstance(end, SendResult)  # noqa: S101 -- both sources see to it; this is for the type checker
        # Last of all, and by a store alone: whatever strikes comes before it, and the next call tells it again.
        self._line.told = index
        return end

    def close(self) -> None:
        """Send no more than is under way, and wait for that."""
        self._run.close()


@dataclass(slots=True)
class Line:
    """
    The jobs of a run that were begun, in their order.

    Attributes:
        begun: Those that were not told, and maybe the last one that was.
        told: The index of the last one that was told.
        backlog: Those of them that nobody has taken.
        threads: Those that work on them.
        failures: What the iterable of the jobs has raised.
    """

    begun: deque[Job | Known] = field(default_factory=deque)
    told: int = -1
    backlog: Backlog = field(default_factory=Backlog)
    threads: list[threading.Thread] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def first(self) -> Job | Known | None:
        """Return the first that was not told."""
        while self.begun and self.begun[0].index <= self.told:
            self.begun.popleft()
        return self.begun[0] if self.begun else None

    def end(self) -> None:
        """Let nothing more be begun, and wait for the threads; where an interrupt ends that, the next call goes on."""
        self.backlog.close()
        # Where the interpreter ends, daemons do not run any more.
        while self.threads and not sys.is_finalizing():
            try:
                self.threads[-1].join()
            except RuntimeError:
                # Its start was interrupted, and it may run or not. It takes nothing any more, but may have something.
                busy = [job for job in self.begun if isinstance(job, Job) and job.started and job.end is None]
                if busy:
                    with suppress(Empty):
                        busy[0].told.get(timeout=_LOOK_AGAIN)
                    continue
            self.threads.pop()

    def left_over(self) -> Job | Known:
        """
        Return the first that was not told when the run is over, with its end.

        Raises:
            StopIteration: There is none, or nothing more will be known.
        """
        self.end()
        job = self.first()
        if job is None and self.failures:
            raise self.failures.pop()
        if job is None or (self.threads and job.end is None):
            raise StopIteration
        if isinstance(job, Job) and not isinstance(job.end, SendResult):
            job.end = _left_over(job)
        return job


def in_order(
    jobs: Iterable[Job | Known], work: Callable[[Backlog], None], workers: int, ahead: int, octets: int = 1 << 30
) -> Results:
    """
    Return what becomes of each of *jobs*, in their order; each of up to so many *workers* does *work* on the backlog.

    The next job is taken from the iterable only while there are fewer than *ahead* that were begun and not told, and,
    beyond one for each worker, fewer than so many *octets* of them. What the iterable raises is raised when everything
    that was begun has been told. Leaving early waits for the jobs that are under way; those that nobody has taken are
    dropped. Where no thread can be started, as at the end of the process, the work is done here.
    """
    line = Line()
    has_enough = bind(is_full, workers=workers, ahead=ahead, octets=octets)
    return Results(_run(jobs, line, work, workers, has_enough), line)


def _run(
    jobs: Iterable[Job | Known],
    line: Line,
    work: Callable[[Backlog], None],
    workers: int,
    has_enough: Callable[[int, int], bool],
) -> Generator[Job | Known]:
    """Yield each of *jobs* when it has its end."""
    told: SimpleQueue[None] = SimpleQueue()
    begun, backlog, held = line.begun, line.backlog, 0
    with _noting(line):
        try:
            for job in _until_it_raises(jobs, line.failures):
                begun.append(job)
                held += _octets(job)
                if isinstance(job, Job):
                    job.told = told
                    backlog.put(job)
                    if len(line.threads) < workers:
                        _start(line.threads, work, backlog)
                while (first := line.first()) and (has_enough(len(begun), held) or first.end is not None):
                    held -= _octets(first)
                    yield _ended(first, told, work, backlog)
            while (first := line.first()) is not None:
                yield _ended(first, told, work, backlog)
        finally:
            line.end()


@contextmanager
def _noting(line: Line) -> Iterator[None]:
    """Note on what interrupts a run the results that nobody has been told, when all that was begun has its end."""
    try:
        yield
    except GeneratorExit:
        raise
    except BaseException as interrupt:
        ends = [job.end for job in line.begun if job.index > line.told and isinstance(job.end, SendResult)]
        for end in ends:
            which = escape(str(end.message_id), 200)
            interrupt.add_note(f"securesmtp: result {end.index}, message {which}: {end.outcome}")
        raise


def _ended(job: Job | Known, told: SimpleQueue[None], work: Callable[[Backlog], None], backlog: Backlog) -> Job | Known:
    # Not a future for each: its locks were a tenth of what a small message costs (measured).
    while job.end is None or not told.empty():
        if job.end is None and not backlog.has_workers:
            _guarded(work, backlog)
        told.get()
    if isinstance(job.end, BaseException):
        # The run ends here.
        raise job.end
    return job


def _left_over(job: Job) -> SendResult:
    """Return the result of a *job* that an interrupt has ended, or that nobody has begun."""
    message_id, error = job.submission.content.message_id, getattr(job.end, "__cause__", None)
    # What struck one message may have ended a thread that was to send others.
    if not isinstance(error, SecureSMTPError) or error.message_id != message_id:
        if job.end is None and job.started:
            error = OutcomeUnknownError("the thread that was to send it has ended", stage=Stage.CONTENT)
        else:
            error = ConnectError("not sent: the run was ended before its turn", stage=Stage.CONNECT, retryable=True)
            error.interrupted = True
        error.message_id = message_id
    drop_frames(error)
    job.submission.content.close()
    return SendResult(job.index, message_id, error.outcome, error.receipt, None if error.receipt else error)


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
