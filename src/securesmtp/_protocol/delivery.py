"""One message for all its recipients, in as many transactions as the server wants (RFC 5321 §3.3, §4.5.3.1.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from securesmtp._protocol.dialogue import (
    Dialogue,
    Partial,
    Pipelining,
    Session,
    ask,
    in_step,
    refused,
    reset,
)
from securesmtp._protocol.pipeline import (
    Answered,
    Progress,
    Room,
    Transaction,
    final_reply,
    mail,
    pipelined,
    rcpt,
    recipient,
    refusal,
    unknown,
)
from securesmtp._protocol.replies import is_positive, is_too_many_recipients
from securesmtp._protocol.wire import line
from securesmtp._values import Recipient, Reply, Stage
from securesmtp.errors import (
    ConnectError,
    DataRefusedError,
    MessageError,
    OutcomeUnknownError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.message import Submission

_SPLIT = 'partial="allow" sends it in several transactions'
_WHO = "the error's recipients say who has it; send it to the others once you know that they have not"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the server said of one message that it accepted: of each recipient, and of each transaction's content."""

    recipients: tuple[Recipient, ...]
    replies: tuple[Reply, ...]
    size: int


class Attempt:
    """
    What is known of one message at any moment: a foreign exception may end its sending anywhere, between two lines too.

    Attributes:
        end: What became of it, once that is known.
        progress: Its transaction that is under way, or was the last.
        group: The recipients of that one.
        fitted: The message as the server takes it, once that is known.
    """

    def __init__(self, begun: Answered | None = None) -> None:
        """Know nothing, but what was said in a transaction that was made already."""
        self.end: Delivery | SecureSMTPError | None = None
        self.progress = Progress()
        self.progress.answered = begun
        self.group: tuple[Mailbox, ...] = ()
        self.fitted: Submission | None = None
        self._said: dict[str, Recipient] = {}
        self._replies: list[Reply] = []
        # The last of them as it was heard.
        self._last: Reply | None = None
        self._room = Room()

    @property
    def is_accepted(self) -> bool:
        """Whether a transaction of it was accepted."""
        return bool(self._replies)

    def add(self, recipients: tuple[Recipient, ...], reply: Reply | None = None) -> None:
        """Note what was said of *recipients*, and the *reply* that accepted the content for them."""
        # Those of each transaction have kept within its own room.
        self._said.update((each.address, replace(each, reply=self._room.keep(each.reply))) for each in recipients)
        if reply is not None and reply is not self._last:
            self._replies.append(self._room.keep(reply))
            self._last = reply

    def has_heard_of(self, mailboxes: Iterable[Mailbox]) -> bool:
        """Return whether the server has said something of each of *mailboxes*."""
        return all(mailbox.address in self._said for mailbox in mailboxes)

    def delivery(self, fitted: Submission) -> Delivery:
        """Return the whole, where everybody has been asked."""
        recipients = tuple(self._said[mailbox.address] for mailbox in fitted.recipients)
        return Delivery(recipients, tuple(self._replies), fitted.content.size)

    def doubtful(self, error: SecureSMTPError) -> OutcomeUnknownError:
        """Return the error for a message that some have, and others do not or may not, because of *error*."""
        asked = set() if self.progress.answered else {mailbox.address for mailbox in self.group}
        known = tuple(each for each in self._said.values() if each.address not in asked)
        count = sum(each.accepted for each in known)
        message = f"accepted for {count} recipient(s), and then, for the rest: {error.args[0]}"
        doubtful = OutcomeUnknownError(message, stage=error.stage, hint=_WHO)
        doubtful.recipients = known
        doubtful.__cause__ = error
        return doubtful

    def lost(self, error: ConnectError) -> Delivery | SecureSMTPError:
        """Return what became of it where nothing more will be known, because of *error*."""
        if self.end is not None:
            return self.end
        if self.progress.answered is not None and self.fitted is not None:
            self.add(*self.progress.answered)
            if self.has_heard_of(self.fitted.recipients):
                return self.delivery(self.fitted)
        if self.is_accepted:
            return self.doubtful(error)
        if not self.progress.ended:
            return error
        what = self.progress.lost(error)
        what.__cause__ = error
        return what


def deliver(
    session: Session,
    submission: Submission,
    partial: Partial,
    pipelining: Pipelining = "off",
    attempt: Attempt | None = None,
) -> Dialogue[Delivery]:
    """
    Submit one message (RFC 5321 §3.3), and know what became of it.

    Where the server takes fewer recipients at a time than there are, ``"allow"`` sends it to the rest in further
    transactions; what fails after the first of them has succeeded is an `OutcomeUnknownError` that says who has it.
    *attempt* is kept up to date; where the first of them has been made already, it knows what was said in it.
    """
    attempt = attempt or Attempt()
    try:
        attempt.end = delivery = yield from _deliver(session, submission, partial, pipelining, attempt)
    except SecureSMTPError as error:
        attempt.end = error
        raise
    return delivery


def _deliver(
    session: Session, submission: Submission, partial: Partial, pipelining: Pipelining, attempt: Attempt
) -> Dialogue[Delivery]:
    attempt.fitted = fitted = submission.adapt_to(session.offered)
    most = session.offered.limits.get("RCPTMAX", len(fitted.recipients))
    if len(fitted.recipients) > most and partial == "raise":
        message = f"the message has {len(fitted.recipients)} recipients, and the server takes {most} at a time"
        raise MessageError(message, stage=Stage.MAIL, hint=_SPLIT)
    waiting, begun = fitted.recipients, attempt.progress.answered
    if begun is None and (needed := transactions(len(fitted.recipients), partial, session)) > max(session.room, 1):
        raise _beyond(session, needed)
    while waiting:
        group, waiting = waiting[:most], waiting[most:]
        try:
            if begun is None:
                attempt.group = group
                part = replace(fitted, recipients=group) if waiting or attempt.is_accepted else fitted
                begun = yield from _transaction(session, part, partial, pipelining, attempt)
        except SecureSMTPError as error:
            if not attempt.is_accepted:
                raise
            attempt.add(_refused(attempt, error))
        else:
            recipients, reply = begun
            full = too_many(recipients)
            if not full and not waiting and not attempt.is_accepted:
                return Delivery(recipients, (reply,), fitted.content.size)
            attempt.add(recipients, reply)
            waiting = tuple(mailbox for mailbox in group if mailbox.address in full) + waiting
        begun = None
        if session.room <= 0 and attempt.has_heard_of(waiting):
            # Refused for now, and each of them is told so.
            break
    return attempt.delivery(fitted)


def _transaction(
    session: Session, part: Submission, partial: Partial, pipelining: Pipelining, attempt: Attempt
) -> Dialogue[Answered]:
    if pipelining != "off" and "PIPELINING" in session.offered:
        attempt.progress = transaction = Transaction(session, part, partial)
        return (yield from pipelined(transaction))
    attempt.progress = progress = Progress()
    return (yield from _lockstep(session, part, partial, progress))


def transactions(recipients: int, partial: Partial, session: Session) -> int:
    """Return how many transactions a message to so many *recipients* needs at least."""
    return -(-recipients // session.offered.limits.get("RCPTMAX", recipients)) if partial == "allow" else 1


def _beyond(session: Session, needed: int) -> SecureSMTPError:
    message = f"the message needs {needed} transactions, and the server takes {max(session.room, 0)} a connection"
    if session.transactions:
        return ConnectError(message, stage=Stage.MAIL, retryable=True)
    return MessageError(message, stage=Stage.MAIL, hint="send it to fewer recipients at a time")


def _refused(attempt: Attempt, error: SecureSMTPError) -> tuple[Recipient, ...]:
    """Return how a later transaction was refused; where that is not certain, the whole message's outcome is unknown."""
    if isinstance(error, RefusedError) and in_step(error) and error.reply is not None:
        reply, answers = error.reply, error.recipients if isinstance(error, RecipientsRefusedError) else ()
        return answers or tuple(Recipient(mailbox.address, accepted=False, reply=reply) for mailbox in attempt.group)
    raise attempt.doubtful(error) from error


def too_many(recipients: Iterable[Recipient]) -> set[str]:
    """Return the addresses that the server takes in a further transaction."""
    return {each.address for each in recipients if is_too_many_recipients(each.reply)}


def _lockstep(session: Session, fitted: Submission, partial: Partial, progress: Progress) -> Dialogue[Answered]:
    """Ask and hear, one command after the other."""
    reply = yield from ask(mail(session, fitted), Stage.MAIL)
    if not is_positive(Stage.MAIL, reply.code):
        raise refused(SenderRefusedError, Stage.MAIL, reply)
    recipients, room = list[Recipient](), Room()
    for mailbox in fitted.recipients:
        reply = yield from ask(rcpt(mailbox), Stage.RCPT)
        recipients.append(recipient(mailbox, room.keep(reply)))
    if no := refusal(recipients, partial):
        yield from _give_up(no)
    reply = yield from ask(line(b"DATA"), Stage.DATA, "data")
    if not is_positive(Stage.DATA, reply.code):
        yield from _give_up(refused(DataRefusedError, Stage.DATA, reply))
    yield from progress.upload(fitted.content.blocks())
    try:
        reply = yield from final_reply()
    except SecureSMTPError as error:
        raise unknown(error) from error
    return progress.accept(tuple(recipients), reply)


def _give_up(no: RefusedError) -> Dialogue[None]:
    """Leave the transaction and raise *no*; where that fails, the failure is its cause."""
    try:
        yield from reset()
    except SecureSMTPError as error:
        raise no from error
    raise no
