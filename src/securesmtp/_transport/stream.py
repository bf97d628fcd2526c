"""
Many messages in flight over one connection, and the truth of each when it ends (RFC 2920, RFC 3030).

Theory of operation: one thread fills the window, then hears the oldest transaction, and so on; the link reads while it
writes, so neither side can wait for the other (RFC 2920 §3.1). Whether a server bears this cannot be asked. So the
first overlap is a trial: nothing but the opening of one message is written behind the content of another. A server that
answers 503, drops it, or closes has been told no content that it could have kept (SERVERS.md: Haraka, chasquid,
Courier, Dovecot); from then on there is one message at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.delivery import Attempt, Delivery, deliver, too_many
from securesmtp._protocol.dialogue import in_step, interrupted
from securesmtp._protocol.pipeline import Transaction, not_sent
from securesmtp._protocol.replies import is_closing
from securesmtp._transport.link import Deadline
from securesmtp._values import Stage
from securesmtp.errors import (
    ConnectError,
    DeadlineExceededError,
    OutcomeUnknownError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from securesmtp._protocol.dialogue import Dialogue, Partial, Session
    from securesmtp._protocol.message import Submission
    from securesmtp._settings import Window
    from securesmtp._transport.link import Link

# How long a server may be silent in the trial, in seconds, before it is taken for one that dropped what it was told.
_TRIAL = 10.0


class Job(Protocol):
    """One message that is to be sent, and the limit for it."""

    @property
    def submission(self) -> Submission:
        """The message."""

    @property
    def overall(self) -> Deadline | None:
        """When it is to be over."""


J = TypeVar("J", bound=Job)
T = TypeVar("T")
# The caller's own errors, too: of a header factory, or a file.
Heard: TypeAlias = Delivery | BaseException


class Bearing:
    """
    Whether the host bears transactions that overlap: not known until one connection has tried.

    Attributes:
        borne: None for not known yet.
        trial: Held by the one connection that tries.
    """

    def __init__(self, on_refuted: Callable[[str], None]) -> None:
        """Know nothing; *on_refuted* is told once why not."""
        self.borne: bool | None = None
        self.trial = threading.Lock()
        self._on_refuted = on_refuted
        self._lock = threading.Lock()

    def prove(self) -> None:
        """It does, as far as is known."""
        with self._lock:
            if self.borne is None:
                self.borne = True

    def refute(self, why: str) -> None:
        """It does not, and is not asked again."""
        with self._lock:
            first, self.borne = self.borne is not False, False
        if first:
            self._on_refuted(why)


@dataclass(slots=True)
class _Flying(Generic[J]):
    job: J
    transaction: Transaction
    behind: bool
    # Where it ends among the octets of the connection.
    end: int = 0


class Stream(Generic[J]):
    """One connection, and what is in flight over it."""

    def __init__(  # noqa: PLR0913 -- all of it is what the mailer has at hand
        self,
        link: Link,
        session: Session,
        *,
        partial: Partial,
        window: Window,
        bearing: Bearing,
        take: Callable[[], J | None],
        tell: Callable[[J, Heard], None],
    ) -> None:
        """*take* gives the next message, or None where there is none now; *tell* hears what became of each, once."""
        self._link, self._session, self._partial, self._window = link, session, partial, window
        self._bearing, self._take, self._tell = bearing, take, tell
        self._flying: deque[_Flying[J]] = deque()
        # Those that overlap with nothing, with what was said of them already.
        self._alone: deque[tuple[J, Delivery | None]] = deque()
        self._most = session.offered.limits.get("RCPTMAX", 1 << 30)

    def run(self) -> None:
        """Send until there is no message left, or no connection."""
        try:
            while self._link.is_open:
                self._fill()
                if self._flying:
                    self._hear()
                elif self._alone:
                    self._deliver(*self._alone.popleft())
                else:
                    return
            # Found ended before another was written: what has come until then is heard.
            while self._flying:
                self._hear()
            self._lose(ConnectError("the connection was closed"))
        except BaseException as error:
            # No answer to anything: an interrupt, or a fault of our own.
            self._lose(interrupted(error, Stage.MAIL))
            raise

    def _fill(self) -> None:
        while not self._alone and self._has_room() and (job := self._take()) is not None:
            try:
                self._begin(job)
            except BaseException as error:
                # What was begun is told with the others.
                if self._flying and self._flying[-1].job is job:
                    raise
                self._tell(job, error)

    def _has_room(self) -> bool:
        return self._link.is_open and (
            not self._flying
            or (
                self._bearing.borne is not False
                and self._flying[-1].transaction.ended
                and len(self._flying) < self._window.messages
                and sum(each.transaction.content.octets for each in self._flying) < self._window.octets
            )
        )

    def _begin(self, job: J) -> None:
        fitted = job.submission.adapt_to(self._session.offered)
        behind = bool(self._flying)
        apart = behind and self._bearing.borne is None
        # A large one is not tried with: its writing may outlast the trial, and it would be written twice.
        large = apart and fitted.content.octets > BLOCK
        if large or "PIPELINING" not in self._session.offered or len(fitted.recipients) > self._most:
            self._alone.append((job, None))
            return
        transaction = Transaction(self._session, fitted, self._partial, behind=behind, apart=apart, more=True)
        flying = _Flying(job, transaction, behind)
        # First: whatever strikes while it is written, it is told.
        self._flying.append(flying)
        try:
            self._run(transaction.open(), job.overall)
        except SecureSMTPError as error:
            self._flying.pop()
            if not self._flying:
                raise
            # It answers nothing: not even a 421 says here what became of those that are in flight.
            raise not_sent(ConnectError(error.args[0], stage=error.stage)) from error
        flying.end = self._link.position

    def _hear(self) -> None:
        oldest = self._flying[0]
        job, transaction = oldest.job, oldest.transaction
        try:
            if transaction.ended:
                answered = self._run(transaction.final(), job.overall)
            else:
                trial = oldest.behind and self._bearing.borne is None
                self._run(transaction.write(), Deadline("trial", _TRIAL, job.overall) if trial else job.overall)
                oldest.end = self._link.position
                if oldest.behind:
                    self._bearing.prove()
                return
        except SecureSMTPError as error:
            self._flying.popleft()
            self._failed(oldest, error)
            return
        recipients, reply = answered
        delivery = Delivery(recipients, (reply,), transaction.content.size)
        self._flying.popleft()
        if too_many(recipients):
            self._alone.append((job, delivery))
        else:
            self._tell(job, delivery)

    def _failed(self, oldest: _Flying[J], error: SecureSMTPError) -> None:
        job, transaction = oldest.job, oldest.transaction
        # A refusal that came before the connection ended says nothing of those behind it: they are heard as well.
        if self._link.is_open or (isinstance(error, RefusedError) and in_step(error)):
            if oldest.behind and isinstance(error, SenderRefusedError) and error.reply and error.reply.code == 503:  # noqa: PLR2004
                # First of all: what is told of it may raise.
                self._alone.append((job, None))
                self._bearing.refute(f'it answers "{error.reply}"')
            else:
                self._tell(job, error)
            return
        cause = error.__cause__ if isinstance(error.__cause__, SecureSMTPError) else error
        if isinstance(error, OutcomeUnknownError):
            error = self._lost(oldest, cause)
        # What was overlapping for the first time when the connection ended, for whatever reason, is the reason.
        refuted = self._bearing.borne is None and (oldest.behind or bool(self._flying))
        # A server that has dropped the opening is silent; a message whose own time has run out is not tried again.
        if refuted and isinstance(error, DeadlineExceededError) and error.limit != "deadline":
            error = transaction.lost(error)
        self._tell(job, error)
        # Behind a 421 there may be replies to what was in flight; they alone say what became of it.
        if cause.reply is None or not is_closing(cause.reply.code):
            self._lose(cause)
        if refuted:
            self._bearing.refute(cause.args[0])

    def _deliver(self, job: J, begun: Delivery | None) -> None:
        attempt = Attempt(None if begun is None else (begun.recipients, begun.replies[0]))
        try:
            dialogue = deliver(self._session, job.submission, self._partial, "message", attempt)
            heard: Heard = self._run(dialogue, job.overall)
        except SecureSMTPError as error:
            heard = error
        except BaseException as error:
            if attempt.fitted is not None:
                self._tell(job, attempt.lost(interrupted(error, Stage.MAIL)))
                raise
            # The caller's own; where some have it already, that is what is told.
            heard = begun or error
        self._tell(job, heard)
        if isinstance(heard, SecureSMTPError) and not self._link.is_open:
            self._lose(heard)

    def _lost(self, each: _Flying[J], error: SecureSMTPError) -> SecureSMTPError:
        # What was held back to the end was not written.
        lost = each.transaction.lost(error) if each.end <= self._link.written else not_sent(error)
        lost.__cause__ = error
        return lost

    def _lose(self, error: SecureSMTPError) -> None:
        """Tell of each that was in flight what became of it when nothing more is heard."""
        for each in self._flying:
            answered = each.transaction.answered
            delivery = answered and Delivery(answered[0], (answered[1],), each.transaction.content.size)
            self._tell(each.job, delivery or self._lost(each, error))
        self._flying.clear()
        for job, begun in self._alone:
            # Where some have it already, the others were refused for now, and each of them is told so.
            self._tell(job, begun or not_sent(error))
        self._alone.clear()

    def _run(self, dialogue: Dialogue[T], overall: Deadline | None) -> T:
        self._link.overall = overall
        return self._link.run(dialogue)
