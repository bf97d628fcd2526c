"""What is known about one transaction: whether its content was fully sent, its result, and the replies in that."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from securesmtp._protocol.effects import Block, receive
from securesmtp._protocol.failures import keep_session, not_sent_error, outcome_unknown_error, refusal_error
from securesmtp._protocol.replies import is_positive, is_refusal
from securesmtp._protocol.wire import KEPT_BEYOND, KEPT_IN_ALL
from securesmtp._values import Recipient, Reply, Stage
from securesmtp.errors import ConnectError, DataRefusedError, ProtocolError, SecureSMTPError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.wire import RawReply

# The reply for each recipient, and the reply that accepted the content.
TransactionResult: TypeAlias = tuple[tuple[Recipient, ...], Reply]


class Progress:
    """
    What is known about one transaction at any moment, for code that has to end it there.

    Attributes:
        is_fully_sent: Whether all of the content may have been written. From then on only the reply to the content
            says what became of it; neither a lost connection nor the reply to another command does.
        result: What the server replied, once it has accepted the content.
    """

    is_fully_sent = False
    result: TransactionResult | None = None

    def write_content(self, blocks: Iterator[bytes], *, coalesce: bool = False) -> Dialogue[None]:
        """Write the content; with *coalesce*, what follows may go in one write with its end."""
        last = None
        # An iterator, and wrapped at once, so that a traceback with local variables shows nothing of the message.
        for block in map(Block, blocks):
            if last is not None:
                yield last
            last = block
        end = Block(last.data if last else b"", coalesce)
        # Set before the write, because an interrupt may come after it.
        self.is_fully_sent = True
        try:
            is_lost = yield end
        except SecureSMTPError as error:
            # The block may have been written before the interrupt.
            if isinstance(error, ConnectError) and error.interrupted:
                raise self.error_after(error) from error
            # A block that failed was not written whole. So the TLS record with its end was not either, and no part of a
            # record can be decrypted (RFC 8446 §5.2).
            self.is_fully_sent = False
            raise
        # Not written whole either, but there are replies to read that say why.
        self.is_fully_sent = not is_lost

    def require_accepted(self, recipients: tuple[Recipient, ...], reply: Reply) -> TransactionResult:
        """Keep and return the result if *reply* accepts the content, and raise the refusal if it does not."""
        if not is_positive(Stage.CONTENT, reply.code):
            raise keep_session(refusal_error(DataRefusedError, Stage.CONTENT, reply))
        self.result = recipients, reply
        return self.result

    def error_after(self, error: SecureSMTPError) -> SecureSMTPError:
        """Return the error for the message if *error* ended the connection before its result was read."""
        return outcome_unknown_error(error) if self.is_fully_sent else not_sent_error(error)


class ReplyBudget:
    """The memory for the replies in one receipt: all of their text up to `KEPT_IN_ALL`, then a part of each."""

    _left = KEPT_IN_ALL

    def cut(self, reply: Reply) -> Reply:
        """Return *reply*, or once the budget is used up the start of it; the codes are kept in any case."""
        self._left -= len(reply.text) + len(reply.raw)
        if self._left >= 0:
            return reply
        text = reply.text if len(reply.text) <= KEPT_BEYOND else reply.text[: KEPT_BEYOND - 1] + "…"
        return Reply(reply.code, reply.enhanced, text, reply.raw[:KEPT_BEYOND])


def read_final_reply() -> Dialogue[Reply]:
    """Return the reply to the content, checked by `check_final_reply`."""
    return check_final_reply((yield from receive(Stage.CONTENT, "final")))


def check_final_reply(raw: RawReply) -> Reply:
    """Return the reply to the content if it is 250 or a refusal; any other is a `ProtocolError`."""
    reply = raw.reply()
    if not is_positive(Stage.CONTENT, reply.code) and not is_refusal(reply.code):
        message = f'the server replied "{reply}" to the content'
        raise ProtocolError(message, stage=Stage.CONTENT, reply=reply)
    return reply


def to_recipient(mailbox: Mailbox, reply: Reply) -> Recipient:
    """Return the result for one recipient."""
    return Recipient(mailbox.address, is_positive(Stage.RCPT, reply.code), reply)
