"""One message for all its recipients, in as many transactions as the server needs (RFC 5321 §3.3, §4.5.3.1.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from securesmtp._protocol.capabilities import parse_capabilities
from securesmtp._protocol.dialogue import check_reply
from securesmtp._protocol.effects import Send, adapt, receive
from securesmtp._protocol.failures import is_end_of_session, is_session_usable, keep_session
from securesmtp._protocol.progress import Progress, ReplyBudget, TransactionResult
from securesmtp._protocol.replies import is_positive, is_too_many_recipients
from securesmtp._protocol.transaction import Partial, Transaction, run_lockstep, run_pipelined
from securesmtp._protocol.wire import line
from securesmtp._values import Recipient, Reply, Stage
from securesmtp.errors import (
    ConnectError,
    MessageError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    SecureSMTPError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.dialogue import Session
    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.message import Submission

Pipelining: TypeAlias = Literal["off", "message", "session"]

_USE_PARTIAL = 'partial="allow" sends it in several transactions'
_SEE_RECIPIENTS = "error.recipients says who has the message; send it to the others once you know that they do not"


@dataclass(slots=True)
class Delivery:
    """What the server replied about a message that it accepted: for each recipient, and to the content each time."""

    recipients: tuple[Recipient, ...]
    replies: tuple[Reply, ...]
    size: int


class Attempt:
    """
    What is known about one message at any moment, because an interrupt may end its sending anywhere.

    Attributes:
        result: What became of it, once that is known.
        progress: Its current transaction, or the last one.
        group: The recipients of that transaction.
        adapted: The message, adapted to the server, once that is done.
    """

    def __init__(self, first: TransactionResult | None = None) -> None:
        """Know nothing but the result of a *first* transaction, if there was one."""
        self.result: Delivery | SecureSMTPError | None = None
        self.progress = Progress()
        self.progress.result = first
        self.group: tuple[Mailbox, ...] = ()
        self.adapted: Submission | None = None
        self._results: dict[str, Recipient] = {}
        self._replies: list[Reply] = []
        # Of the transaction that was added last.
        self._last_recipients: tuple[Recipient, ...] = ()
        self._budget = ReplyBudget()

    @property
    def is_accepted(self) -> bool:
        """Whether the server accepted a transaction of it."""
        return bool(self._replies)

    def add(self, recipients: tuple[Recipient, ...], reply: Reply | None = None) -> None:
        """Keep the results of *recipients*, and the *reply* that accepted the content for them."""
        # Each transaction has cut its replies to a budget of its own.
        self._results.update((each.address, replace(each, reply=self._budget.cut(each.reply))) for each in recipients)
        # An interrupt may have it added twice. The reply does not tell: equal replies are one object.
        if reply is not None and recipients is not self._last_recipients:
            self._replies.append(self._budget.cut(reply))
            self._last_recipients = recipients

    def has_results_for(self, mailboxes: Iterable[Mailbox]) -> bool:
        """Return whether there is a result for each of *mailboxes*."""
        return all(mailbox.address in self._results for mailbox in mailboxes)

    def to_delivery(self, adapted: Submission) -> Delivery:
        """Return the delivery, if there is a result for each recipient."""
        recipients = tuple(self._results[mailbox.address] for mailbox in adapted.recipients)
        return Delivery(recipients, tuple(self._replies), adapted.content.size)

    def partly_unknown_error(self, error: SecureSMTPError) -> OutcomeUnknownError:
        """Return the error for a message that some recipients have and others may not have, because of *error*."""
        pending = set() if self.progress.result else {mailbox.address for mailbox in self.group}
        known = tuple(each for each in self._results.values() if each.address not in pending)
        count = sum(each.accepted for each in known)
        message = f"accepted for {count} recipient(s), and then, for the rest: {error.args[0]}"
        unknown = OutcomeUnknownError(message, stage=error.stage, hint=_SEE_RECIPIENTS)
        unknown.recipients = known
        unknown.__cause__ = error
        return unknown

    def result_after(self, error: ConnectError) -> Delivery | SecureSMTPError:
        """Return what became of the message if *error* ended the connection now."""
        if self.result is not None:
            return self.result
        if self.progress.result is not None and self.adapted is not None:
            self.add(*self.progress.result)
            if self.has_results_for(self.adapted.recipients):
                return self.to_delivery(self.adapted)
        if self.is_accepted:
            return self.partly_unknown_error(error)
        if not self.progress.is_fully_sent:
            return error
        unknown = self.progress.error_after(error)
        unknown.__cause__ = error
        return unknown


def deliver(
    session: Session,
    submission: Submission,
    partial: Partial,
    pipelining: Pipelining = "off",
    attempt: Attempt | None = None,
) -> Dialogue[Delivery]:
    """
    Send one message (RFC 5321 §3.3).

    If the server takes fewer recipients at a time than there are, ``"allow"`` sends the message to the others in
    further transactions. A failure after the first of them was accepted is an `OutcomeUnknownError` that says who has
    the message. *attempt* is kept up to date; it may hold the result of a first transaction.
    """
    attempt = attempt or Attempt()
    try:
        attempt.result = delivery = yield from _deliver(session, submission, partial, pipelining, attempt)
    except SecureSMTPError as error:
        attempt.result = error
        raise
    return delivery


def _deliver(
    session: Session, submission: Submission, partial: Partial, pipelining: Pipelining, attempt: Attempt
) -> Dialogue[Delivery]:
    attempt.adapted = adapted = yield from _adapt(session, submission)
    max_recipients = session.capabilities.limits.get("RCPTMAX", len(adapted.recipients))
    if len(adapted.recipients) > max_recipients and partial == "raise":
        message = f"the message has {len(adapted.recipients)} recipients; the server takes {max_recipients} at a time"
        raise MessageError(message, stage=Stage.MAIL, hint=_USE_PARTIAL)
    waiting, result = adapted.recipients, attempt.progress.result
    if result is None:
        _check_transactions_left(session, transactions_needed(len(adapted.recipients), partial, session))
    while waiting:
        group, waiting = waiting[:max_recipients], waiting[max_recipients:]
        try:
            if result is None:
                attempt.group = group
                part = replace(adapted, recipients=group) if waiting or attempt.is_accepted else adapted
                result = yield from _run_transaction(session, part, partial, pipelining, attempt)
        except SecureSMTPError as error:
            if not attempt.is_accepted:
                raise
            attempt.add(_refused_recipients(attempt, error))
        else:
            recipients, reply = result
            again = deferred(recipients)
            if not again and not waiting and not attempt.is_accepted:
                return Delivery(recipients, (reply,), adapted.content.size)
            attempt.add(recipients, reply)
            waiting = tuple(mailbox for mailbox in group if mailbox.address in again) + waiting
        result = None
        if session.transactions_left <= 0 and attempt.has_results_for(waiting):
            # Their result is a temporary refusal.
            break
    return attempt.to_delivery(adapted)


def _adapt(session: Session, submission: Submission) -> Dialogue[Submission]:
    """Return *submission* in a form that the server accepts; if there is none, nothing was written of it."""
    try:
        return (yield from adapt(submission, session.capabilities))
    except MessageError as error:
        # Asked again only now, because some servers refuse to be asked.
        if not session.can_ask_again:
            raise keep_session(error)  # noqa: B904 -- it is the same
        unfit = error
    try:
        yield from _ask_again(session)
    except SecureSMTPError as error:
        # A new connection ends because it was asked. If it was not asked, the message would be refused, too; and the
        # end says nothing about the server, which other messages use.
        if session.transactions or not is_end_of_session(error):
            raise
        raise unfit from error
    try:
        return (yield from adapt(submission, session.capabilities))
    except MessageError as error:
        raise keep_session(error)  # noqa: B904 -- it is the same


def _ask_again(session: Session) -> Dialogue[None]:
    """
    Ask for the capabilities again, after the login; if the server refuses, those that it has listed before stay.

    Dovecot 2.4 offers SMTPUTF8 only then; OpenSMTPD and qpsmtpd refuse with 503 (measured).
    """
    session.can_ask_again = False
    yield Send(line(b"EHLO", session.name), Stage.EHLO)
    raw = yield from receive(Stage.EHLO)
    if is_positive(Stage.EHLO, raw.code):
        session.capabilities = parse_capabilities(raw.lines)
    else:
        check_reply(raw, Stage.EHLO)


def _run_transaction(
    session: Session, part: Submission, partial: Partial, pipelining: Pipelining, attempt: Attempt
) -> Dialogue[TransactionResult]:
    if pipelining != "off" and "PIPELINING" in session.capabilities.keywords:
        attempt.progress = transaction = Transaction(session, part, partial)
        return run_pipelined(transaction)
    attempt.progress = progress = Progress()
    return run_lockstep(session, part, partial, progress)


def transactions_needed(recipients: int, partial: Partial, session: Session) -> int:
    """Return how many transactions a message to this many *recipients* needs at least."""
    return -(-recipients // session.capabilities.limits.get("RCPTMAX", recipients)) if partial == "allow" else 1


def round_trips(session: Session, pipelining: Pipelining) -> int:
    """Return how many round trips a small message to one recipient takes in an open *session*."""
    if pipelining == "off" or "PIPELINING" not in session.capabilities:
        # MAIL, RCPT, DATA, and the content.
        return 4
    # Everything in one flight; or the content waits for the reply to DATA.
    return 1 if session.can_chunk else 2


def _check_transactions_left(session: Session, needed: int) -> None:
    left = max(session.transactions_left, 0)
    if needed <= max(left, 1):
        return
    message = f"the message needs {needed} transactions; the server allows {left} more on this connection"
    if session.transactions:
        raise ConnectError(message, stage=Stage.MAIL, retryable=True)
    raise MessageError(message, stage=Stage.MAIL, hint="send it to fewer recipients at a time")


def _refused_recipients(attempt: Attempt, error: SecureSMTPError) -> tuple[Recipient, ...]:
    """Return the results of a later transaction that was refused; without certainty, the outcome is unknown."""
    if is_session_usable(error) and error.reply is not None:
        reply, results = error.reply, error.recipients if isinstance(error, RecipientsRefusedError) else ()
        return results or tuple(Recipient(mailbox.address, accepted=False, reply=reply) for mailbox in attempt.group)
    raise attempt.partly_unknown_error(error) from error


def deferred(recipients: Iterable[Recipient]) -> set[str]:
    """Return the addresses that the server takes only in a further transaction."""
    return {each.address for each in recipients if is_too_many_recipients(each.reply)}
