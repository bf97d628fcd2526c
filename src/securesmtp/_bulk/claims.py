"""
A run and its ledger: what is sent, and what becomes of it in the ledger, before anybody sees it.

How it works: the caller's thread makes a job of each message (`job`). The thread of the run claims jobs when there are
connections for them, and writes how they ended before the reader sees it (`advance`): once in each turn of the poller,
for all jobs of that turn. These steps yield the calls of the ledger, because tasks make them in a thread. An interrupt
may strike at any line, if the run has no thread of its own. So a job is noted as claimed before its claim, and until
its end is written; `flush` may repeat what it has done.
"""

from __future__ import annotations

from collections import deque
from functools import partial as bind
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol, TypeVar

from securesmtp._bulk.calls import perform
from securesmtp._bulk.entries import call_to_claim, can_advance, check_ledger, end_before, is_doubtful, result_of
from securesmtp._bulk.jobs import Job
from securesmtp._bulk.read_ahead import result_without_end, to_result
from securesmtp._interrupts import raise_if_interrupt
from securesmtp._queued import QueuedMessage
from securesmtp._shown import quote
from securesmtp._submissions import as_given, check_key, digest, given_key
from securesmtp._transport.deadline import Deadline
from securesmtp._values import SendResult
from securesmtp.errors import LedgerError, SecureSMTPError
from securesmtp.ledger import Item, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    from securesmtp._bulk.calls import Calls
    from securesmtp._bulk.jobs import AnyJob
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.message import Submission
    from securesmtp._submissions import Parcel
    from securesmtp.ledger import Entry, Ledger

T = TypeVar("T")


class Run(Protocol):
    """What a run does with messages that are not claimed (`_bulk.run`)."""

    fatal_error: Exception | None

    def submission(self, message: Message | Envelope | Parcel, message_id: str | None = None) -> Submission:
        """Return *message* as it is sent, with the *message_id* of an earlier try."""

    def refuse(self, job: Job, cause: Exception) -> None:
        """Give *job* the error of a message that is not sent because *cause* has ended the run."""

    def refuse_with(self, job: Job, error: SecureSMTPError) -> None:
        """Give *job* the *error* because of which it is not sent."""


class Claims:
    """
    The messages of a run in its ledger.

    Attributes:
        waiting: The jobs that are not claimed.
        failures: What is raised after the results: the first error of the ledger, or of the caller's iterable.
        released: The keys of jobs that got their end because the run has ended.
        on_end: Is called when there is an end to be written.
    """

    def __init__(self, run: Run, ledger: Ledger, stock: int = 0) -> None:
        """
        Start without a message; claim so many at a time beyond one for each free worker.

        Raises:
            ConfigurationError: *ledger* is none.
        """
        check_ledger(ledger)
        self.waiting: deque[Job] = deque()
        self.failures: list[Exception] = []
        # Apart from `failures`, to which the caller's iterable adds what it raises.
        self._failure: LedgerError | None = None
        self.released: set[str] = set()
        self.on_end: Callable[[], object] = _do_nothing
        self._run, self._ledger, self._token = run, ledger, token_hex(16)
        self._stock = stock
        # By key: the jobs without an end, and those of them that may be claimed.
        self._open: dict[str, Job] = {}
        self._claimed: dict[str, Job] = {}
        # Ends that are not in the ledger yet; the second kind the reader has all the same, because the ledger failed.
        self._ended = deque[tuple[Job, SendResult | BaseException]]()
        self._unwritten: dict[str, SendResult] = {}

    # In the caller's thread.

    def job(
        self, index: int, message: Message | Envelope | Parcel, start_deadline: Callable[[], Deadline | None]
    ) -> AnyJob:
        """
        Return the job for *message*; or what the ledger already knows of it.

        Raises:
            LedgerError: The ledger cannot be read.
            MessageError: It has no key, or its key is that of another message.
        """
        key = given_key(message)
        first, entry = self._find(key)
        message_id = first.submission.content.message_id if first else entry.message_id if entry else None
        submission = self._run.submission(message, message_id)
        try:
            if key is None:
                key = check_key(submission.content.message_id)
                first, entry = self._find(key)
            given = as_given(message)
            found = given.digest if isinstance(given, QueuedMessage) else digest(submission)
            item = Item(key, found, submission.content.message_id)
            job = Job(index, submission, start_deadline, item, is_doubtful=is_doubtful(item, entry))
            end = end_before(job, first, entry)
        except BaseException:
            submission.content.close()
            raise
        if end is not None:
            submission.content.close()
            return end
        job.keep_end = self._note
        self._open[key] = job
        return job

    def _find(self, key: str | None) -> tuple[Job | None, Entry | None]:
        """Return the job of this run with this *key* that has no end, and the entry of the ledger if there is none."""
        if key is None:
            return None, None
        # In this order: a job that has just got its end is in the ledger.
        first = self._open.get(key)
        return first, None if first else perform(self._call(lambda: self._ledger.look_up(key), "cannot be read"))

    # In the thread of the run, or in its event loop.

    @property
    def has_ends(self) -> bool:
        """Whether there are ends to be written."""
        return bool(self._ended)

    def has_work(self, free: int, held: int) -> bool:
        """Return whether there are ends to be written, or jobs to be claimed."""
        return bool(self._ended) or (bool(self.waiting) and self._wanted(free, held) > 0)

    def _wanted(self, free: int, held: int) -> int:
        return max(free - held, self._stock if held <= self._stock // 2 else 0)

    def advance(self, free: int, held: int) -> Calls[list[Job]]:
        """
        Write what has ended, and claim jobs; return those to send.

        Args:
            free: How many workers have no job.
            held: How many jobs are claimed, and no worker has taken them.
        """
        claims_more = bool(self.waiting) and self._wanted(free, held) > 0 and self._cause is None
        # The first claim takes the ends along, if the ledger can do both in one commit.
        if not (claims_more and can_advance(self._ledger)):
            yield from self.flush()
        jobs = yield from self.claim_next(free, held)
        # Those that could not be sent.
        yield from self.flush()
        return jobs

    @property
    def _cause(self) -> Exception | None:
        return self._run.fatal_error or self._failure

    def claim_next(self, free: int, held: int) -> Calls[list[Job]]:
        """Claim jobs, as `advance`; return those to send."""
        claimed: list[Job] = []
        count = self._wanted(free, held)
        while self.waiting and len(claimed) < count:
            cause = self._cause
            if cause is None:
                jobs = [self.waiting.popleft() for _ in range(min(count - len(claimed), len(self.waiting)))]
                claimed += yield from self._claim(jobs)
            else:
                self._refuse(self.waiting.popleft(), cause)
        return claimed

    def _claim(self, jobs: list[Job]) -> Calls[list[Job]]:
        # Before the claim, so that nothing is sent when the ledger counts it as too old.
        until = Deadline("deadline", self._ledger.longest_send)
        items = {job.key: job.item for job in jobs if job.item is not None}
        self._claimed.update((job.key, job) for job in jobs)
        ended, ends = self._ends() if can_advance(self._ledger) else ([], {})
        claim = call_to_claim(self._ledger, ends, list(items.values()), self._token)
        try:
            entries = yield from self._call(claim, "cannot be written")
        except LedgerError as error:
            self._let_go(ended, unwritten=ends)
            for job in jobs:
                self._refuse(job, error)
            return []
        self._let_go(ended, unwritten={})
        # All at once, so that a ledger that returns too few has no effect on the first ones.
        pairs = list(zip(jobs, entries, strict=True))
        return [job for job, entry in pairs if self._may_send(job, entry, until)]

    def _may_send(self, job: Job, entry: Entry, until: Deadline) -> bool:
        is_ours = entry.state is State.CLAIMED and entry.token == self._token
        if is_ours and entry.message_id == job.submission.content.message_id:
            job.latest = until
            return True
        if is_ours:
            # Two runs have read it at the same time, and each has made one. Or the first one cannot be written again.
            text = f"not sent: an earlier try has given it the Message-ID {quote(entry.message_id, allow_at=True)}"
            error = LedgerError(text, retryable=True, hint="try again; if you set a Message-ID, set that one")
            self._run.refuse_with(job, error)
        else:
            del self._claimed[job.key]
            self._settle(job, result_of(job, entry))
        return False

    def _refuse(self, job: Job, cause: Exception) -> None:
        """Give *job*, of which nothing was sent, the error of what has ended the run."""
        if not isinstance(cause, LedgerError):
            self._run.refuse(job, cause)
            return
        error = LedgerError(f"not sent: {cause.args[0]}", retryable=True, hint=cause.hint)
        error.__cause__ = cause
        self._run.refuse_with(job, error)

    def _note(self, job: Job, end: SendResult | BaseException) -> None:
        """Keep the *end* of *job* until the ledger has it."""
        if job.key in self._claimed:
            self._ended.append((job, end))
            self.on_end()
        else:
            self._settle(job, end)

    def flush(self) -> Calls[None]:
        """Write the ends of all jobs into the ledger, and let the reader have them."""
        if not self._ended:
            return
        ended, ends = self._ends()
        try:
            yield from self._call(bind(self._ledger.finish, ends, self._token), "cannot be written")
        except LedgerError:
            self._let_go(ended, unwritten=ends)
        else:
            self._let_go(ended, unwritten={})

    def _ends(self) -> tuple[list[tuple[Job, SendResult | BaseException]], dict[str, SendResult]]:
        """Return the jobs whose ends the reader does not have, and what the ledger does not have."""
        ended = list(self._ended)
        return ended, self._unwritten | {job.key: to_result(job, end) for job, end in ended}

    def _let_go(self, ended: list[tuple[Job, SendResult | BaseException]], unwritten: dict[str, SendResult]) -> None:
        """Let the reader have the ends of these jobs; if the ledger failed, they are true all the same."""
        # Written with the next ones, if that succeeds.
        self._unwritten = unwritten
        for job, end in ended:
            self._settle(job, end)
            self._claimed.pop(job.key, None)
            self._ended.popleft()

    def release(self) -> Calls[None]:
        """Write into the ledger what became of claimed jobs that will not be sent, at the end of the run."""
        yield from self.flush()
        for job in list(self._claimed.values()):
            self.released.add(job.key)
            self._note(job, result_without_end(job))
        yield from self.flush()

    def _settle(self, job: Job, end: SendResult | BaseException) -> None:
        job.settle(end)
        self._open.pop(job.key, None)

    def _call(self, call: Callable[[], T], what: str) -> Calls[T]:
        """
        Return the result of a *call* of the ledger; an error of it ends the run.

        Raises:
            LedgerError: It failed.
        """
        try:
            result: T = yield call
        except LedgerError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 -- a ledger may be anybody's
            raise_if_interrupt(error)
            failure = LedgerError(f"the ledger {what} ({type(error).__name__})")
            failure.__cause__ = error
        else:
            return result
        # It is raised at the end of the results: once.
        self._failure = self._failure or failure
        if not self.failures:
            self.failures.append(failure)
        raise failure


def _do_nothing() -> None:
    """Whoever notes an end looks for it by itself."""
