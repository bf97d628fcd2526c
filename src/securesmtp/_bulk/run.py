"""
One run of `send_many`: what becomes of each of its messages, and how many workers it has.

Nothing here waits: a worker asks what to do next, and does it. All workers of a run are in one thread.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from enum import Enum
from functools import partial as bind
from typing import TYPE_CHECKING

from securesmtp._bulk.jobs import AnyJob, Ending, InvalidInput, Job
from securesmtp._bulk.rules import (
    State,
    Verdict,
    can_resend,
    is_connection_limit,
    is_login_refusal,
    is_retryable,
    judge,
    pause,
)
from securesmtp._submissions import from_any
from securesmtp._tracebacks import drop_frames
from securesmtp._values import Outcome, Receipt, SendResult, Stage
from securesmtp.errors import AuthenticationError, ConnectError, LedgerError, SecureSMTPError
from securesmtp.events import FewerConnections, is_interrupt

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from email.message import Message

    from securesmtp._bulk.claims import Claims
    from securesmtp._core import Core
    from securesmtp._envelope import Envelope
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.transaction import Partial
    from securesmtp._sending import Checkout, Sending
    from securesmtp._submissions import Parcel
    from securesmtp._transport.overlap_support import OverlapSupport
    from securesmtp.ledger import Ledger


class Step(Enum):
    """What a worker does next."""

    RESEND = "it sends the same message again"
    CONTINUE = "it takes the next message"
    PAUSE = "it waits, and then takes the next message"
    LEAVE = "it ends"


class Run:
    """
    One call of `send_many`: its workers, and what has ended it.

    Attributes:
        core: That of its mailer.
        partial: What to do when some recipients are refused.
        fatal_error: Why the remaining messages are not sent; None while they are.
        most_workers: How many workers it may have.
        ahead: How many messages it reads ahead of the results that were yielded.
        octets: How many octets of them, beyond one message for each worker.
        claims: Its messages in a ledger; None without one.
    """

    def __init__(
        self,
        core: Core,
        partial: Partial,
        ledger: Ledger | None = None,
        *,
        is_patient: bool = True,
        fatal_error: Exception | None = None,
    ) -> None:
        """
        Start without a worker; with a *fatal_error*, nothing is sent.

        Unless it *is_patient*, the first connection that cannot be opened ends it when no other is left.

        Raises:
            ConfigurationError: *ledger* is none.
        """
        self.core = core
        self.partial = partial
        self.fatal_error = fatal_error
        settings = core.settings
        window = settings.window.messages if settings.pipelining == "session" else 1
        self.most_workers = settings.max_connections
        self.ahead = 2 * self.most_workers * window
        self.octets = 2 * self.most_workers * settings.window.octets
        self._allowed = settings.max_connections
        self._is_patient = is_patient
        self._state = State(0, settings.max_connect_failures if is_patient else 1)
        self.claims = None if ledger is None else _claims(self, ledger, window)

    def jobs(self, messages: Iterable[Message | Envelope | Parcel], deadline: float | None) -> Iterator[AnyJob]:
        """Yield a job for each of *messages*, and read one of them at a time."""
        for index, message in enumerate(messages):
            yield self.job(index, message, deadline)
            if self.has_failed:
                return

    def job(self, index: int, message: Message | Envelope | Parcel, deadline: float | None) -> AnyJob:
        """Return the job for *message*, as it is now: a caller may change the object afterwards."""
        start_deadline = bind(self.core.start_deadline, deadline)
        try:
            if self.claims is not None:
                return self.claims.job(index, message, start_deadline)
            return Job(index, self.submission(message), start_deadline)
        except Exception as error:  # ours, or that of the envelope's own iterable or file
            if is_interrupt(error) or isinstance(error, LedgerError):
                raise
            drop_frames(error)
            return InvalidInput(SendResult(index, None, Outcome.NOT_SENT, error=error))

    def submission(self, message: Message | Envelope | Parcel, message_id: str | None = None) -> Submission:
        """Return *message* as it is sent, with the *message_id* of an earlier try."""
        return self.core.build(from_any, message, message_id)

    @property
    def has_failed(self) -> bool:
        """Whether the ledger has failed: no further message is read."""
        return self.claims is not None and bool(self.claims.failures)

    def enter(self) -> bool:
        """Add a worker, and return whether there is room for it."""
        room = self._state.workers < self._allowed
        if room:
            self._state = replace(self._state, workers=self._state.workers + 1)
        return room

    def leave(self) -> None:
        """Take back a worker that has nothing more to do."""
        self._state = replace(self._state, workers=self._state.workers - 1)

    def note_connection(self) -> None:
        """Note that a worker has a session."""
        state = self._state
        # Mostly nothing is new.
        if not state.has_connected or state.failures or state.login_refused or state.login_skipped:
            self._state = replace(self._state, has_connected=True, failures=0, login_refused=False, login_skipped=False)

    def take_login_permit(self) -> bool:
        """Return True once if the last worker is to log in even while the mailer pauses logins."""
        if not self._state.has_login_permit:
            return False
        self._state = replace(self._state, has_login_permit=False)
        return True

    @property
    def pause(self) -> float:
        """How long the last worker waits before it tries again, in seconds."""
        return pause(self._state.failures)

    def overlap(self, support: OverlapSupport) -> AbstractContextManager[None] | None:
        """Return what to hold while messages overlap, or None if they must not: only one connection at a time tries."""
        if self.core.settings.pipelining != "session" or self.fatal_error is not None or support.supported is False:
            return None
        if support.supported:
            return nullcontext()
        return _releasing(support.trial) if support.trial.acquire(blocking=False) else None

    def settle(
        self, job: Job, end: Receipt | BaseException, checkout: Checkout, put_back: Callable[[Job], None]
    ) -> Step:
        """Give *job* its result, or return it to the backlog with *put_back*; return what its worker does next."""
        if checkout.session is not None:
            self.note_connection()
        if isinstance(end, Exception):
            # Handlers of events and log records may keep the errors of all tries.
            drop_frames(end)
            if checkout.is_unconnected:
                return self.settle_unconnected(job, end, put_back)
        left = self.shrink_after(end)
        if not can_resend(end) or (job.was_resent and not left):
            self.finish(job, end)
        elif not left:
            job.was_resent = True
            return Step.RESEND
        else:
            # Not counted as a try: the run has one worker less each time, so that this comes to an end.
            put_back(job)
        if not left:
            return Step.CONTINUE
        # Last, because on_event may raise, which ends this worker.
        self.emit_fewer(left, end)
        return Step.LEAVE

    def settle_unconnected(self, job: Job, error: Exception, put_back: Callable[[Job], None]) -> Step:
        """Do what the rule says when no connection could be opened for *job*; return what its worker does next."""
        verdict, left = self.judge_failure(error)
        if verdict is Verdict.REPORT:
            self.finish(job, error)
            return Step.CONTINUE
        put_back(job)
        if verdict is Verdict.RETRY:
            return Step.PAUSE
        self.emit_fewer(left, error)
        return Step.LEAVE

    def judge_failure(self, error: Exception) -> tuple[Verdict, int]:
        """Return what to do after *error*, which kept a worker from a session, and how many workers are left."""
        verdict, self._state = judge(error, self._state)
        if verdict is Verdict.LEAVE:
            self._allowed = self._state.workers
        if self._state.has_ended and self.fatal_error is None:
            self.fatal_error = error
        return verdict, self._state.workers

    def shrink_after(self, end: object) -> int:
        """Let a worker leave if *end* is a connection limit; return how many are left, 0 if it stays."""
        return self.shrink() if is_connection_limit(end) else 0

    def shrink(self) -> int:
        """Let a worker leave, unless it is the last; return how many are left, 0 if it stays."""
        left = self._state.workers - 1
        if left:
            self._allowed = left
            self._state = replace(self._state, workers=left)
        return left

    def emit_fewer(self, left: int, reason: object) -> None:
        """Emit that the run goes on with fewer connections."""
        settings = self.core.settings
        self.core.emit(FewerConnections(settings.host, settings.port, left, _text(reason)))

    def conclude(self, sending: Sending, end: Receipt | BaseException) -> Receipt | BaseException:
        """Emit the event of the *end* of a message, and return it; or what on_event raises instead."""
        with Ending[Receipt | BaseException]() as ending:
            self.core.conclude(sending, end)
            ending.end = end
        return ending.end

    def refuse(self, job: Job, cause: Exception) -> None:
        """Give *job* the error of a message that is not sent because *cause* has ended the run."""
        self.refuse_with(job, self.error_after(cause))

    def refuse_with(self, job: Job, error: SecureSMTPError) -> None:
        """Give *job* the *error* because of which it is not sent."""
        self.core.annotate(error, job.submission.content.message_id)
        self.finish(job, error)

    def finish(self, job: Job, end: Receipt | BaseException) -> None:
        """Count the *end* of a message, and give it to *job*."""
        self.core.activity.count(end)
        job.finish(end)

    def error_after(self, cause: Exception) -> SecureSMTPError:
        """Return the error of a message that is not sent because *cause* has ended the run."""
        kind: type[SecureSMTPError] = ConnectError
        if is_login_refusal(cause):
            kind, message = AuthenticationError, "not sent: the login was refused for an earlier message of this run"
        else:
            failures, last = self._state.most, _text(cause)
            message = f"not sent: {failures} connections in a row could not be opened, the last one because: {last}"
            if not self._is_patient:
                message = f"not sent: no connection could be opened: {last.removeprefix('not sent: ')}"
        error = kind(message, stage=getattr(cause, "stage", Stage.AUTH), retryable=is_retryable(cause))
        error.reply, error.hint = getattr(cause, "reply", None), getattr(cause, "hint", None)
        error.__cause__ = cause
        return error


def _claims(run: Run, ledger: Ledger, window: int) -> Claims:
    # Few programs have a ledger.
    from securesmtp._bulk.claims import Claims

    # With many in flight, a window is claimed at a time; otherwise, no message before there is a connection for it.
    return Claims(run, ledger, window if window > 1 else 0)


@contextmanager
def _releasing(lock: threading.Lock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


def _text(error: object) -> str:
    return str(error.args[0]) if isinstance(error, SecureSMTPError) else type(error).__name__
