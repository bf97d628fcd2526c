"""One message for all its recipients, in as many transactions as the server wants (RFC 5321 §3.3, §4.5.3.1.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from securesmtp._protocol.dialogue import Block, Dialogue, Partial, Pipelining, Session, ask, in_step, refused, reset
from securesmtp._protocol.pipeline import (
    RCPT_OK,
    Answered,
    Room,
    accepted,
    final_reply,
    mail,
    pipelined,
    rcpt,
    recipient,
    refusal,
    unknown,
)
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


def deliver(
    session: Session,
    submission: Submission,
    partial: Partial,
    pipelining: Pipelining = "off",
    begun: Answered | None = None,
) -> Dialogue[Delivery]:
    """
    Submit one message (RFC 5321 §3.3), and know what became of it.

    Where the server takes fewer recipients at a time than there are, ``"allow"`` sends it to the rest in further
    transactions; what fails after the first of them has succeeded is an `OutcomeUnknownError` that says who has it.
    Where the first of them has been made already, *begun* is what was said in it.
    """
    fitted = submission.fit(session.offered)
    transaction = pipelined if pipelining != "off" and "PIPELINING" in session.offered else _lockstep
    most = session.offered.limits.get("RCPTMAX", len(fitted.recipients))
    if len(fitted.recipients) > most and partial == "raise":
        message = f"the message has {len(fitted.recipients)} recipients, and the server takes {most} at a time"
        raise MessageError(message, stage=Stage.MAIL, hint=_SPLIT)
    if begun is None and (needed := transactions(len(fitted.recipients), partial, session)) > max(session.room, 1):
        raise _beyond(session, needed)
    waiting, said, replies, room = fitted.recipients, dict[str, Recipient](), list[Reply](), Room()
    while waiting:
        group, waiting = waiting[:most], waiting[most:]
        try:
            part = replace(fitted, recipients=group) if waiting or replies else fitted
            begun = begun or (yield from transaction(session, part, partial))
        except SecureSMTPError as error:
            if not replies:
                raise
            recipients = _refused(group, error, said)
        else:
            recipients, reply = begun
            replies.append(room.keep(reply))
            full = too_many(recipients)
            if not full and not waiting and len(replies) == 1:
                return Delivery(recipients, (reply,), fitted.content.size)
            waiting = tuple(mailbox for mailbox in group if mailbox.address in full) + waiting
        begun = None
        # Each of them has kept within its own room.
        said |= {each.address: replace(each, reply=room.keep(each.reply)) for each in recipients}
        if session.room <= 0 and all(mailbox.address in said for mailbox in waiting):
            # Refused for now, and each of them is told so.
            break
    ordered = tuple(said[mailbox.address] for mailbox in fitted.recipients)
    return Delivery(ordered, tuple(replies), fitted.content.size)


def transactions(recipients: int, partial: Partial, session: Session) -> int:
    """Return how many transactions a message to so many *recipients* needs at least."""
    return -(-recipients // session.offered.limits.get("RCPTMAX", recipients)) if partial == "allow" else 1


def _beyond(session: Session, needed: int) -> SecureSMTPError:
    message = f"the message needs {needed} transactions, and the server takes {max(session.room, 0)} a connection"
    if session.transactions:
        return ConnectError(message, stage=Stage.MAIL, retryable=True)
    return MessageError(message, stage=Stage.MAIL, hint="send it to fewer recipients at a time")


def _refused(group: tuple[Mailbox, ...], error: SecureSMTPError, said: dict[str, Recipient]) -> tuple[Recipient, ...]:
    """Return how a later transaction was refused; where that is not certain, the whole message's outcome is unknown."""
    if isinstance(error, RefusedError) and in_step(error) and error.reply is not None:
        answers = error.recipients if isinstance(error, RecipientsRefusedError) else ()
        return answers or tuple(Recipient(mailbox.address, accepted=False, reply=error.reply) for mailbox in group)
    asked = {mailbox.address for mailbox in group}
    known = tuple(each for each in said.values() if each.address not in asked)
    message = (
        f"accepted for {sum(each.accepted for each in known)} recipient(s), and then, for the rest: {error.args[0]}"
    )
    doubtful = OutcomeUnknownError(message, stage=error.stage, hint=_WHO)
    doubtful.recipients = known
    raise doubtful from error


def too_many(recipients: Iterable[Recipient]) -> set[str]:
    """Return the addresses that the server takes in a further transaction (RFC 5321 §4.5.3.1.10)."""
    # With another enhanced code it is the storage or the mailbox that is full (RFC 3463 §3.6).
    return {each.address for each in recipients if each.reply.code == 452 and each.reply.enhanced in {None, "4.5.3"}}  # noqa: PLR2004


def _lockstep(session: Session, fitted: Submission, partial: Partial) -> Dialogue[Answered]:
    """Ask and hear, one command after the other."""
    reply = yield from ask(mail(session, fitted), Stage.MAIL, (250,))
    if reply.code != 250:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        raise refused(SenderRefusedError, Stage.MAIL, reply)
    recipients, room = list[Recipient](), Room()
    for mailbox in fitted.recipients:
        reply = yield from ask(rcpt(mailbox), Stage.RCPT, RCPT_OK)
        recipients.append(recipient(mailbox, room.keep(reply)))
    if no := refusal(recipients, partial):
        yield from _give_up(no)
    reply = yield from ask(line(b"DATA"), Stage.DATA, (354,), "data")
    if reply.code != 354:  # noqa: PLR2004 -- RFC 5321 §4.3.2
        yield from _give_up(refused(DataRefusedError, Stage.DATA, reply))
    # As effects at once: a traceback with local variables shows nothing of the message.
    yield from map(Block, fitted.content.blocks())
    try:
        reply = yield from final_reply()
    except SecureSMTPError as error:
        raise unknown(error) from error
    return tuple(recipients), accepted(reply)


def _give_up(no: RefusedError) -> Dialogue[None]:
    """Leave the transaction and raise *no*; where that fails, the failure is its cause."""
    try:
        yield from reset()
    except SecureSMTPError as error:
        raise no from error
    raise no
