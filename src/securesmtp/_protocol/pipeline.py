"""
One message in as few writes as there can be, and many of them in flight (RFC 2920, RFC 3030): whose reply is whose.

Theory of operation: a transaction has three acts. It is opened: MAIL and RCPT are written, and with them DATA, or the
whole content as a chunk, where no reply can forbid it. When the opening is answered, its content is written, where it
was not yet. Its final reply is heard. A transaction may be opened as soon as the content of the one before it is
written. Replies come in the order of the commands, so the oldest transaction is always the one that is heard.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, cast

from securesmtp._protocol.content import BLOCK, EMPTY
from securesmtp._protocol.dialogue import (
    Block,
    Dialogue,
    Flight,
    Partial,
    Receive,
    Session,
    ask,
    closing,
    hear,
    refused,
)
from securesmtp._protocol.replies import is_closing, is_not_a_command, is_positive, is_refusal
from securesmtp._protocol.wire import KEPT_BEYOND, KEPT_IN_ALL, Line, RawReply, line
from securesmtp._values import Recipient, Reply, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    OutcomeUnknownError,
    ProtocolError,
    RecipientsRefusedError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from securesmtp._protocol.address import Mailbox
    from securesmtp._protocol.message import Submission

# What was said of each recipient, and of the content, which was accepted.
Answered: TypeAlias = tuple[tuple[Recipient, ...], Reply]

_NO_CHUNKS = "the server offers CHUNKING and refuses BDAT: sent again by this mailer, the message goes by DATA"


class Progress:
    """
    What is known of one transaction at any moment, for whoever has to end it there.

    Attributes:
        ended: Whether its content may have been written to its end, and its own reply was not heard: from then on
            nothing else says what became of it, neither a lost connection nor the reply to another command.
        answered: What was said of it when it was accepted.
    """

    ended = False
    answered: Answered | None = None

    def upload(self, blocks: Iterable[bytes], *, more: bool = False) -> Dialogue[None]:
        """Write the content; *more* goes along with its end."""
        last = None
        # As effects at once: a traceback with local variables shows nothing of the message.
        for block in map(Block, blocks):
            if last is not None:
                yield last
            last = block
        end = Block(last.data if last else b"", more)
        # Before it is written: an interrupt may strike behind it.
        self.ended = True
        try:
            lost = yield end
        except SecureSMTPError as error:
            # It may have been written when the interrupt struck.
            if isinstance(error, ConnectError) and error.interrupted:
                raise self.lost(error) from error
            # A block that failed was not written whole, so the TLS record with its end was not, and no part of a record
            # can be decrypted (RFC 8446 §5.2).
            self.ended = False
            raise
        # The same, where there are replies to be heard that say why.
        self.ended = not lost

    def accept(self, recipients: tuple[Recipient, ...], reply: Reply) -> Answered:
        """Keep what was said, if *reply* accepts the content, and raise its refusal if not."""
        if not is_positive(Stage.CONTENT, reply.code):
            raise refused(DataRefusedError, Stage.CONTENT, reply)
        self.answered = recipients, reply
        return self.answered

    def lost(self, error: SecureSMTPError) -> SecureSMTPError:
        """Return what became of it when *error* has ended the connection, and it was not heard yet."""
        return unknown(error) if self.ended else not_sent(error)


class Transaction(Progress):
    """
    One message on its way to a server that offers PIPELINING.

    Attributes:
        content: The octets of the message.
    """

    def __init__(  # noqa: PLR0913 -- keyword-only, all with defaults
        self,
        session: Session,
        submission: Submission,
        partial: Partial,
        *,
        behind: bool = False,
        apart: bool = False,
        more: bool = False,
    ) -> None:
        """
        Write nothing yet.

        Args:
            session: Where it happens.
            submission: The message as the server takes it.
            partial: Whether a recipient that is refused forbids the content.
            behind: Whether another one is in flight before it.
            apart: Keep a chunk apart from the opening in any case.
            more: Let what follows go in one write with the end of the content.
        """
        self.content = submission.content
        self._session, self._submission, self._partial, self._more = session, submission, partial, more
        self._by_chunk = session.can_chunk
        # RFC 3030 §2: a chunk that is refused leaves its transaction open, and the next would become a part of it.
        self._reset = session.left_open or (behind and self._by_chunk)
        # An accepted DATA cannot be taken back, nor can a chunk: where all or nobody is to have the message, they wait
        # for the replies. And nothing large is uploaded for nobody.
        self._along = partial == "allow" or len(submission.recipients) == 1
        if self._by_chunk:
            self._along = self._along and not apart and self.content.octets <= BLOCK
        self._recipients: tuple[Recipient, ...] = ()
        self._refusal: SecureSMTPError | None = None

    def open(self) -> Dialogue[None]:
        """Write the opening, in one flight."""
        lines = [*[line(b"RSET")] * self._reset, mail(self._session, self._submission)]
        lines += map(rcpt, self._submission.recipients)
        if self._along:
            lines.append(self._chunk() if self._by_chunk else line(b"DATA"))
        self._session.left_open = False
        yield Flight(tuple(lines), Stage.MAIL)
        if self._along and self._by_chunk:
            yield from self.upload((b"".join(self.content.chunk()),), more=self._more)

    def write(self) -> Dialogue[None]:
        """
        Hear what the opening met, and write the content.

        Raises:
            RefusedError: It is forbidden; the session is in step.
        """
        go = False
        try:
            yield from self._hear_opening()
        except SecureSMTPError as error:
            if self._refusal is None or (error.reply is not None and is_closing(error.reply.code)):
                raise
            raise self._refusal from error
        if not self._by_chunk and (self._along or self._refusal is None):
            reply = yield from hear(Stage.DATA, "data") if self._along else ask(line(b"DATA"), Stage.DATA, "data")
            go = is_positive(Stage.DATA, reply.code)
            if not go and self._refusal is None:
                self._refusal = refused(DataRefusedError, Stage.DATA, reply)
        if self._refusal is not None:
            self._session.left_open = True
            if self._by_chunk or not go:
                raise self._refusal
        if self._by_chunk:
            yield Flight((self._chunk(),), Stage.CONTENT)
            yield from self.upload(self.content.chunk(), more=self._more)
        else:
            # Who has said 354 is owed a content; one that nobody is to get has no line (RFC 2920 §3.1).
            blocks = self.content.blocks() if self._refusal is None else (EMPTY,)
            yield from self.upload(blocks, more=self._more)

    def final(self) -> Dialogue[Answered]:
        """
        Hear all that is still to be said of it.

        Raises:
            RefusedError: Nobody has it; the session is in step where the error has no cause.
            OutcomeUnknownError: Nobody knows.
        """
        try:
            if self._along and self._by_chunk:
                yield from self._hear_opening()
            reply = yield from final_reply()
        except RefusedError:
            raise
        except SecureSMTPError as error:
            raise self.lost(error) from error
        if self._by_chunk:
            self._session.left_open = is_refusal(reply.code) or self._refusal is not None
            if self._refusal is None and is_not_a_command(reply.code):
                self._session.chunking_refused = reply
        if self._refusal is None:
            try:
                return self.accept(self._recipients, reply)
            except DataRefusedError as error:
                if self._session.chunking_refused is reply:
                    error.retryable, error.hint = True, _NO_CHUNKS
                raise
        # Nobody was to get it: it should be refused.
        if not is_refusal(reply.code):
            what = ProtocolError("the server accepted a content for nobody", stage=Stage.CONTENT, reply=reply)
            raise self.lost(what) from what
        raise self._refusal from (closing(reply, Stage.CONTENT) if is_closing(reply.code) else None)

    def lost(self, error: SecureSMTPError) -> SecureSMTPError:
        """Return what became of it where its content has no reply to go by, because of *error*."""
        # An empty content is nobody's message. A chunk is one, and a server that refused everything else may take it.
        return self._refusal if self.ended and self._refusal and not self._by_chunk else super().lost(error)

    def _chunk(self) -> Line:
        return line(b"BDAT", b"%d" % self.content.octets, b"LAST")

    def _hear_opening(self) -> Dialogue[None]:
        """Hear the replies up to those of the recipients, and keep what forbids the content."""
        if self._reset:
            _, self._refusal = yield from self._hear_command(Stage.RSET)
        reply, error = yield from self._hear_command(Stage.MAIL)
        if not is_positive(Stage.MAIL, reply.code):
            self._refusal = self._refusal or error or refused(SenderRefusedError, Stage.MAIL, reply)
        answers, room, last = list[Recipient](), Room(), None
        for mailbox in self._submission.recipients:
            reply, error = yield from self._hear_command(Stage.RCPT)
            answers.append(recipient(mailbox, room.keep(reply)))
            last = last or error
        self._recipients = tuple(answers)
        no = refusal(answers, self._partial)
        self._refusal = self._refusal or (no and last) or no

    def _hear_command(self, stage: Stage) -> Dialogue[tuple[Reply, SecureSMTPError | None]]:
        """Hear the reply to a command of the opening, and what it is the end of, should nothing else be heard."""
        try:
            return (yield from hear(stage)), None
        except (AuthenticationError, ConnectError) as error:
            # With its content written, a transaction is heard to its end: a server that says 421 to RCPT has been seen
            # to take the chunk behind it.
            if error.reply is None or (not self.ended and isinstance(error, ConnectError)):
                raise
            return error.reply, error


class Room:
    """What one receipt keeps of a server's words: all of them up to `KEPT_IN_ALL`, and of each further reply a part."""

    def __init__(self) -> None:
        """Have kept nothing."""
        self._left = KEPT_IN_ALL

    def keep(self, reply: Reply) -> Reply:
        """Return what is kept of *reply*: its codes in any case."""
        self._left -= len(reply.text) + len(reply.raw)
        if self._left >= 0:
            return reply
        text = reply.text if len(reply.text) <= KEPT_BEYOND else reply.text[: KEPT_BEYOND - 1] + "…"
        return Reply(reply.code, reply.enhanced, text, reply.raw[:KEPT_BEYOND])


def pipelined(transaction: Transaction) -> Dialogue[Answered]:
    """Submit one message, and wait for its end."""
    yield from transaction.open()
    if not transaction.ended:
        yield from transaction.write()
    return (yield from transaction.final())


def mail(session: Session, fitted: Submission) -> Line:
    """
    Return the MAIL command, with the parameters that the server offers (RFC 1870, RFC 6152, RFC 6531).

    It is counted as the beginning of a transaction.
    """
    session.transactions += 1
    utf8 = fitted.needs_smtputf8
    parameters = [b"SIZE=%d" % fitted.content.size] if "SIZE" in session.offered else []
    parameters += [b"BODY=8BITMIME"] if not fitted.content.is_ascii else []
    parameters += [b"SMTPUTF8"] if utf8 else []
    return line(b"MAIL", b"FROM:<" + fitted.mail_from.encoded + b">", *parameters, utf8=utf8)


def rcpt(mailbox: Mailbox) -> Line:
    """Return the RCPT command."""
    # One path that is not ASCII makes the parameter on MAIL, which allows UTF-8 in every path (RFC 6531 §3.3).
    return line(b"RCPT", b"TO:<" + mailbox.encoded + b">", utf8=mailbox.needs_smtputf8)


def recipient(mailbox: Mailbox, reply: Reply) -> Recipient:
    """Return what was said of one recipient."""
    return Recipient(mailbox.address, is_positive(Stage.RCPT, reply.code), reply)


def refusal(recipients: Sequence[Recipient], partial: Partial) -> RecipientsRefusedError | None:
    """Return the error where a refused recipient forbids the content."""
    no = [each for each in recipients if not each.accepted]
    if not no or (partial == "allow" and len(no) < len(recipients)):
        return None
    what = f"{len(no)} of {len(recipients)} refused"
    error = refused(RecipientsRefusedError, Stage.RCPT, no[0].reply, what)
    # Whoever was accepted did not get it either.
    error.recipients = tuple(replace(each, accepted=False) for each in recipients)
    error.hint = "the error's recipients have each one's reply"
    if len(no) < len(recipients):
        error.hint += '; partial="allow" delivers to the rest'
    error.retryable = all(each.retryable for each in no)
    return error


def final_reply() -> Dialogue[Reply]:
    """Return the reply to the content, which is 250 or a refusal."""
    reply = cast("RawReply", (yield Receive(Stage.CONTENT, "final"))).reply()
    if not is_positive(Stage.CONTENT, reply.code) and not is_refusal(reply.code):
        message = f'the content is answered by "{reply}"'
        raise ProtocolError(message, stage=Stage.CONTENT, reply=reply)
    return reply


def unknown(error: SecureSMTPError) -> OutcomeUnknownError:
    """Return the error for a content that was ended, and not answered because of *error*."""
    message = f"the content was ended, and then: {error.args[0]}. The message may have been delivered"
    hint = "see in the server's log whether the one with its Message-ID was accepted before you send it again"
    if error.hint:
        hint += f"; {error.hint}"
    return OutcomeUnknownError(message, stage=Stage.CONTENT, hint=hint)


def not_sent(error: SecureSMTPError) -> ConnectError:
    """Return the error for a message that a connection which *error* has ended was to carry."""
    message = f"not sent, because of an earlier message on the same connection: {error.args[0]}"
    return ConnectError(message, stage=Stage.MAIL, reply=error.reply, retryable=True)
