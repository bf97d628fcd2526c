"""
Many messages in flight over one connection, and the true outcome of each when the connection ends (RFC 2920, RFC 3030).

How it works: the sender is one long dialogue. It fills the window, reads the result of the oldest transaction, and
repeats. The connection reads while it writes, so client and server cannot wait for each other (RFC 2920 §3.1). When it
has ended, the replies that came before are still read. No server says whether it supports overlapping transactions. So
the first overlap is a trial: only the envelope of one message is written behind the content of another. A server that
replies 503, drops the envelope or closes has received no content that it could have kept (SERVERS.md: Haraka, chasquid,
Courier, Dovecot). From then on, one message is sent at a time.

A split would part what decides an outcome from what it depends on, so the file is longer than 300 lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.delivery import Attempt, Delivery, deferred, deliver
from securesmtp._protocol.effects import SetDeadline, adapt
from securesmtp._protocol.failures import find_interrupt, interrupt_error, is_session_usable, not_sent_error
from securesmtp._protocol.replies import is_bad_sequence, is_closing
from securesmtp._protocol.transaction import Overlap, Partial, Transaction
from securesmtp._values import Stage
from securesmtp.errors import (
    ConnectError,
    DeadlineExceededError,
    MessageError,
    OutcomeUnknownError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Deadline, Dialogue
    from securesmtp._protocol.exchange import Exchange
    from securesmtp._protocol.message import Submission

_UNKNOWN = object()
# Seconds that a server may be silent in the trial before it is assumed to have dropped the envelope.
_TRIAL = 10.0


class Job(Protocol):
    """One message to send, and its time limit."""

    @property
    def submission(self) -> Submission:
        """The message."""

    @property
    def deadline(self) -> Deadline | None:
        """When its sending must be done."""


class Window(Protocol):
    """How much may be in flight (`_options.Window`)."""

    @property
    def messages(self) -> int:
        """The number of messages."""

    @property
    def octets(self) -> int:
        """The bytes of their contents."""


class OverlapSupport(Protocol):
    """Whether the host supports overlapping transactions (`_transport.overlap_support`)."""

    supported: bool | None

    def confirm(self) -> None:
        """Note that a trial went well."""

    def rule_out(self, reason: str) -> None:
        """Note that the host does not support it."""


J = TypeVar("J", bound=Job)
T = TypeVar("T")
# The error may be of the caller's own code, such as a header factory or a file.
SendOutcome: TypeAlias = Delivery | BaseException


class _InterruptError(BaseException):
    """An interrupt that ended the connection: it passes the handlers that decide one message's outcome."""

    def __init__(self, error: ConnectError) -> None:
        super().__init__()
        self.error = error


@dataclass(slots=True)
class _InFlight(Generic[J]):
    job: J
    transaction: Transaction
    overlap: Overlap
    # Bytes of the contents of those that were started before it.
    before: int
    # Stream offset at which it ends.
    end: int = 0


@dataclass(kw_only=True, repr=False, eq=False)
class OverlappingSender(Generic[J]):
    """
    Send many messages over one connection.

    Attributes:
        exchange: The account of the connection.
        session: The session on it.
        partial: Whether a refused recipient forbids the content.
        window: How much may be in flight.
        support: Whether the host supports overlapping.
        next_job: Return the next message, or None if there is none now.
        report: Receives the outcome of each message, once.
    """

    exchange: Exchange
    session: Session
    partial: Partial
    window: Window
    support: OverlapSupport
    next_job: Callable[[], J | None]
    report: Callable[[J, SendOutcome], None]
    _in_flight: deque[_InFlight[J]] = field(init=False, default_factory=deque)
    # Bytes of the contents of all that were started.
    _octets: int = field(init=False, default=0)
    # That of the connection.
    _deadline: object = field(init=False, default=_UNKNOWN)
    # Messages to be sent without overlap, each with the delivery of its first transaction if there was one.
    _sequential: deque[tuple[J, Delivery | None]] = field(init=False, default_factory=deque)

    def run(self) -> Dialogue[None]:
        """Send until there are no more messages, or the connection has ended."""
        try:
            while not self.exchange.ended:
                yield from self._fill_window()
                if self._in_flight:
                    yield from self._advance_oldest()
                elif self._sequential:
                    yield from self._send_sequentially(*self._sequential.popleft())
                else:
                    return
            # The connection ended before another message was written: read what came until then.
            while self._in_flight:
                yield from self._advance_oldest()
            self._report_all(ConnectError("the connection was closed"))
        except _InterruptError as interrupt:
            self._report_all(interrupt.error)
        except BaseException as error:
            # A fault of our own, or an interrupt between two effects: it decides no message's outcome.
            self._report_all(interrupt_error(error, Stage.MAIL))
            raise

    def _fill_window(self) -> Dialogue[None]:
        while not self._sequential and self._has_room() and (job := self.next_job()) is not None:
            try:
                yield from self._start(job)
            except BaseException as error:
                # A message that was started is reported with the others.
                if self._in_flight and self._in_flight[-1].job is job:
                    raise
                self.report(job, error)

    def _has_room(self) -> bool:
        return not self.exchange.ended and (
            not self._in_flight
            or (
                self.support.supported is not False
                and self._in_flight[-1].transaction.is_fully_sent
                and len(self._in_flight) < self.window.messages
                and self._octets - self._in_flight[0].before < self.window.octets
            )
        )

    def _start(self, job: J) -> Dialogue[None]:
        capabilities = self.session.capabilities
        try:
            adapted = yield from adapt(job.submission, capabilities)
        except MessageError:
            if not self.session.can_ask_again:
                raise
            # EHLO may show more, but not with messages in flight: it aborts a transaction (RFC 5321 §4.1.4).
            self._sequential.append((job, None))
            return
        follows = bool(self._in_flight)
        is_trial = follows and self.support.supported is None
        # A large message is not used for the trial: writing it may outlast the trial, and it would be written twice.
        is_large = is_trial and adapted.content.size > BLOCK
        has_many = len(adapted.recipients) > capabilities.limits.get("RCPTMAX", 1 << 30)
        if is_large or has_many or "PIPELINING" not in capabilities:
            self._sequential.append((job, None))
            return
        overlap = Overlap(follows=follows, hold_chunk=is_trial, coalesce=True)
        transaction = Transaction(self.session, adapted, self.partial, overlap)
        started = _InFlight(job, transaction, overlap, self._octets)
        self._octets += adapted.content.size
        # Before the write, so that an interrupt in it is reported for this message too.
        self._in_flight.append(started)
        try:
            yield from self._run(transaction.send_envelope(), job.deadline)
        except SecureSMTPError as error:
            self._in_flight.pop()
            if not self._in_flight:
                raise
            # No reply to this message: even 421 says nothing here about the messages in flight.
            raise not_sent_error(ConnectError(error.args[0], stage=error.stage)) from error
        started.end = self.exchange.position

    def _advance_oldest(self) -> Dialogue[None]:
        oldest = self._in_flight[0]
        job, transaction, follows = oldest.job, oldest.transaction, oldest.overlap.follows
        try:
            if transaction.is_fully_sent:
                recipients, reply = yield from self._run(transaction.read_result(), job.deadline)
            else:
                is_trial = follows and self.support.supported is None
                yield from self._run(transaction.send_content(), job.deadline, is_trial=is_trial)
                oldest.end = self.exchange.position
                if follows:
                    self.support.confirm()
                return
        except SecureSMTPError as error:
            self._in_flight.popleft()
            self._handle_failure(oldest, error)
            return
        delivery = Delivery(recipients, (reply,), transaction.content.size)
        self._in_flight.popleft()
        if deferred(recipients):
            self._sequential.append((job, delivery))
        else:
            self.report(job, delivery)

    def _handle_failure(self, failed: _InFlight[J], error: SecureSMTPError) -> None:
        job, follows = failed.job, failed.overlap.follows
        # A refusal that came before the connection ended decides one message; the replies to the others are read too.
        if not self.exchange.ended or is_session_usable(error):
            if follows and isinstance(error, SenderRefusedError) and error.reply and is_bad_sequence(error.reply.code):
                # Kept first, because the event may raise.
                self._sequential.append((job, None))
                self.support.rule_out(f'the server replied "{error.reply}"')
            else:
                self.report(job, error)
            return
        cause = error.__cause__ if isinstance(error.__cause__, SecureSMTPError) else error
        if isinstance(error, OutcomeUnknownError):
            error = self._error_after(failed, cause)
        # If the connection dies during the trial, assume that overlapping caused it.
        is_ruled_out = self.support.supported is None and (follows or bool(self._in_flight))
        # A server that dropped the envelope is silent. But a message whose own deadline expired is not sent again.
        if is_ruled_out and isinstance(error, DeadlineExceededError) and error.limit != "deadline":
            error = failed.transaction.error_after(error)
        self.report(job, error)
        # After a 421, replies to what was in flight may still come; only they say what became of those messages.
        if cause.reply is None or not is_closing(cause.reply.code):
            self._report_all(cause)
        if is_ruled_out:
            self.support.rule_out(cause.args[0])

    def _send_sequentially(self, job: J, first: Delivery | None) -> Dialogue[None]:
        attempt = Attempt(None if first is None else (first.recipients, first.replies[0]))
        try:
            dialogue = deliver(self.session, job.submission, self.partial, "message", attempt)
            outcome: SendOutcome = yield from self._run(dialogue, job.deadline)
        except SecureSMTPError as error:
            outcome = error
        except _InterruptError as interrupt:
            self.report(job, (first if attempt.adapted is None else None) or attempt.result_after(interrupt.error))
            raise
        except BaseException as error:
            if attempt.adapted is not None:
                self.report(job, attempt.result_after(interrupt_error(error, Stage.MAIL)))
                raise
            # The caller's own error. If some recipients have the message already, report that instead.
            outcome = first or error
        self.report(job, outcome)
        if isinstance(outcome, SecureSMTPError) and self.exchange.ended:
            self._report_all(outcome)

    def _error_after(self, each: _InFlight[J], error: SecureSMTPError) -> SecureSMTPError:
        # What was held back to the end was not written.
        is_written = each.end <= self.exchange.written
        result = each.transaction.error_after(error) if is_written else not_sent_error(error)
        result.__cause__ = error
        return result

    def _report_all(self, error: SecureSMTPError) -> None:
        """Report the outcome of each message in flight when *error* has ended the connection."""
        for each in self._in_flight:
            result = each.transaction.result
            delivery = result and Delivery(result[0], (result[1],), each.transaction.content.size)
            self.report(each.job, delivery or self._error_after(each, error))
        self._in_flight.clear()
        for job, first in self._sequential:
            # If some recipients have the message, the others have a temporary refusal.
            self.report(job, first or not_sent_error(error))
        self._sequential.clear()

    def _run(self, dialogue: Dialogue[T], deadline: Deadline | None, *, is_trial: bool = False) -> Dialogue[T]:
        """Run the *dialogue* of one message by its *deadline*, as the connection would run it if it were alone."""
        try:
            # Most messages have no deadline: they need no effect to change it, unless the connection has failed.
            if deadline is not self._deadline or is_trial or self.exchange.ended:
                self._deadline = _UNKNOWN
                yield SetDeadline(deadline, "trial", _TRIAL) if is_trial else SetDeadline(deadline)
                self._deadline = _UNKNOWN if is_trial else deadline
            return (yield from dialogue)
        except BaseException as error:
            if not is_session_usable(error):
                self.exchange.end(error if isinstance(error, SecureSMTPError) else None)
            interrupt = find_interrupt(error)
            if interrupt is not None:
                raise _InterruptError(interrupt) from None
            raise
