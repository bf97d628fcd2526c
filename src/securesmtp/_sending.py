"""One message while it is sent: what is known of it, and its use of a connection."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from securesmtp._protocol.failures import interrupt_error
from securesmtp._values import Outcome, Receipt, SendResult, Stage
from securesmtp.errors import ConnectError, OutcomeUnknownError, SecureSMTPError
from securesmtp.events import Failed

if TYPE_CHECKING:
    from securesmtp._protocol.delivery import Attempt, Delivery
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.message import Submission


@dataclass(slots=True)
class Sending:
    """
    One message while it is sent, and what is known of it if an interrupt strikes.

    Attributes:
        message_id: Its Message-ID, if it is known yet.
        started: When its sending began.
        progress: The session that it is sent in, the message, and how far it is; None before there is a session.
        error: What has ended its sending, if it was an error.
        receipt: Its receipt, once it was accepted.
        is_reported: Whether its event was emitted.
        is_second_login: Whether it is sent over a new connection because the first one lost its login.
        submission: The message, once it is built.
        thread: The thread that sends it.
    """

    message_id: str | None
    started: float
    progress: tuple[Session, Submission, Attempt] | None = None
    error: SecureSMTPError | None = None
    receipt: Receipt | None = None
    is_reported: bool = False
    is_second_login: bool = False
    submission: Submission | None = None
    thread: int = field(default_factory=threading.get_ident)

    def accept(self, session: Session, submission: Submission, delivery: Delivery) -> Receipt:
        """Make the receipt for the *delivery* of *submission*, keep it and return it."""
        self.receipt = Receipt(
            submission.content.message_id,
            submission.mail_from.address,
            delivery.recipients,
            delivery.replies[-1],
            session.tls,
            delivery.size,
            timedelta(seconds=monotonic() - self.started),
            delivery.replies,
            dsn_left_out=submission.extensions.dsn is not None and "DSN" not in session.capabilities,
        )
        return self.receipt

    def failure(self, host: str, port: int, error: SecureSMTPError) -> Failed:
        """Return the event of a send that *error* has ended."""
        tls = None if self.progress is None else self.progress[0].tls
        elapsed, made = timedelta(seconds=monotonic() - self.started), self.submission
        if made is None:
            return Failed(host, port, error, elapsed, tls)
        return Failed(host, port, error, elapsed, tls, len(made.recipients), made.content.size)

    def error_after(self, interrupt: BaseException) -> SecureSMTPError:
        """Return the error that says what became of the message if *interrupt* ended its sending now."""
        if self.error is not None:
            return self.error
        lost = interrupt_error(interrupt, Stage.CONNECT if self.progress is None else Stage.MAIL)
        receipt = self.receipt
        if receipt is None:
            if self.progress is None:
                return lost
            session, submission, attempt = self.progress
            result = attempt.result_after(lost)
            if isinstance(result, SecureSMTPError):
                return result
            receipt = self.accept(session, submission, result)
        message = f'{lost.args[0]} when the server had accepted the message: "{receipt.reply}"'
        error = SecureSMTPError(message, stage=Stage.CONTENT, reply=receipt.reply)
        error.outcome, error.receipt = Outcome.ACCEPTED, receipt
        return error

    @property
    def end(self) -> Receipt | SecureSMTPError | None:
        """What became of it; None as long as that is not known."""
        return self.error or self.receipt

    def result(self, index: int) -> SendResult:
        """
        Return what became of the message, for a caller that closes the mailer.

        Its error is a copy: the other one is raised in the thread of the send, and its traceback holds the message.
        """
        error, receipt, message_id = self.error, self.receipt, self.message_id
        if error is not None:
            copy = SecureSMTPError.from_dict(error.as_dict())
            return SendResult(index, message_id, error.outcome, error.receipt, copy)
        if receipt is not None:
            return SendResult(index, receipt.message_id, Outcome.ACCEPTED, receipt)
        text = "the send did not end when the mailer was closed"
        if self.progress is None:
            # It hangs where nothing can end it, as in a look-up of a name; its connection is aborted.
            error = ConnectError(text, retryable=True)
            error.message_id = message_id
            return SendResult(index, message_id, error.outcome, error=error)
        unknown = OutcomeUnknownError(text, stage=Stage.CONTENT)
        unknown.message_id = self.progress[1].content.message_id
        return SendResult(index, unknown.message_id, unknown.outcome, error=unknown)


class Guard(Protocol):
    """Knows which server is down."""

    def check_use(self) -> None:
        """Raise a ``ConnectError`` if another send has found the server down since this one has begun."""

    def note_unconnected(self, error: SecureSMTPError) -> None:
        """Note that no connection could be opened, because of *error*."""


@dataclass(slots=True)
class Checkout:
    """
    One use of a connection by a send, and how far it got.

    Attributes:
        ignores_pause: Whether it logs in even while the mailer pauses logins.
        needs_new: Whether it uses no connection that has carried a message.
        has_turn: Whether the rate has let it go.
        has_slot: Whether it got a slot, and may use a connection.
        session: The session that it found or opened there.
        guard: Stands between several sends and a server that may be down; None if there is only one server.
    """

    ignores_pause: bool = False
    needs_new: bool = False
    has_turn: bool = False
    has_slot: bool = False
    session: Session | None = None
    guard: Guard | None = None

    @property
    def is_of_run(self) -> bool:
        """Whether a run uses it, which counts its messages itself; any other send that has one has a *guard*."""
        return self.guard is None

    def check_use(self) -> None:
        """
        Do nothing if the connection, which has become free, may be used.

        Raises:
            ConnectError: Another send has found the server down meanwhile.
        """
        if self.guard is not None:
            self.guard.check_use()

    def note_error(self, error: SecureSMTPError) -> None:
        """Note the *error* of the send before its slot is free: the next one in it looks whether the server is down."""
        if self.guard is not None and self.is_unconnected:
            self.guard.note_unconnected(error)

    @property
    def transactions(self) -> int:
        """How many transactions its session has had."""
        return 0 if self.session is None else self.session.transactions

    @property
    def is_unconnected(self) -> bool:
        """Whether it had a slot, but no connection could be opened in it."""
        return self.has_slot and self.session is None
