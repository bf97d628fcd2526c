"""
One message for one group of recipients, in as few writes as possible (RFC 2920, RFC 3030).

How it works: a transaction has three steps. `send_envelope` writes MAIL and RCPT, and with them DATA or the whole
content as a chunk, if no reply can forbid the content. `send_content` reads the replies to the envelope and writes the
content if that was not done yet. `read_result` reads the final reply. The next transaction may send its envelope as
soon as the content of this one is written. Replies come in the order of the commands, so the next reply always belongs
to the oldest transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from securesmtp._protocol.commands import mail_command, rcpt_command
from securesmtp._protocol.content import BLOCK, EMPTY
from securesmtp._protocol.dialogue import Session, check_reply, reset, send_command
from securesmtp._protocol.effects import CommandGroup, Receive, receive_some
from securesmtp._protocol.failures import (
    end_session,
    is_session_usable,
    keep_session,
    outcome_unknown_error,
    recipients_error,
    refusal_error,
    server_closing_error,
)
from securesmtp._protocol.progress import (
    Progress,
    ReplyBudget,
    TransactionResult,
    check_final_reply,
    read_final_reply,
    to_recipient,
)
from securesmtp._protocol.replies import is_bad_sequence, is_closing, is_command_unsupported, is_positive, is_refusal
from securesmtp._protocol.wire import Line, line
from securesmtp._values import Recipient, Reply, Stage
from securesmtp.errors import (
    AuthenticationError,
    ConnectError,
    DataRefusedError,
    MessageError,
    ProtocolError,
    RefusedError,
    SecureSMTPError,
    SenderRefusedError,
)

if TYPE_CHECKING:
    from securesmtp._protocol.content import Content
    from securesmtp._protocol.effects import Dialogue, Limit
    from securesmtp._protocol.message import Submission
    from securesmtp._protocol.wire import RawReply

Partial: TypeAlias = Literal["raise", "allow"]
_RSET, _DATA = line(b"RSET"), line(b"DATA")
_BDAT_REFUSED = "the server offers CHUNKING but refused BDAT; if you send the message again, this mailer uses DATA"


@dataclass(slots=True)
class Overlap:
    """
    How a transaction overlaps with others on the connection.

    Attributes:
        follows: Whether another transaction before it is in flight.
        hold_chunk: Do not send the chunk with the envelope.
        coalesce: Let what follows go in one write with the end of the content.
    """

    follows: bool = False
    hold_chunk: bool = False
    coalesce: bool = False


_NO_OVERLAP = Overlap()


class Transaction(Progress):
    """
    One message on its way to a server that offers PIPELINING.

    Attributes:
        content: The content of the message.
    """

    def __init__(
        self, session: Session, submission: Submission, partial: Partial, overlap: Overlap = _NO_OVERLAP
    ) -> None:
        """
        Write nothing yet.

        Args:
            session: The session.
            submission: The message, adapted to the server.
            partial: Whether a refused recipient forbids the content.
            overlap: How it overlaps with other transactions.

        Raises:
            MessageError: It is binary, and the server has refused BDAT.
        """
        _check_chunking(session, submission.content)
        self.content = submission.content
        self._session, self._submission, self._partial = session, submission, partial
        self._coalesce = overlap.coalesce
        self._by_chunk = session.can_chunk
        # RFC 3030 §2: a refused chunk leaves its transaction open, and the next one would become a part of it.
        self._starts_with_reset = session.needs_reset or (overlap.follows and "CHUNKING" in session.capabilities)
        # An accepted DATA cannot be taken back, nor can a chunk. So they wait for the replies if all recipients or none
        # are to get the message. Nothing large is uploaded that may be refused.
        self._with_envelope = partial == "allow" or len(submission.recipients) == 1
        if self._by_chunk:
            self._with_envelope = self._with_envelope and not overlap.hold_chunk and self.content.size <= BLOCK
        self._recipients: tuple[Recipient, ...] = ()
        self._refusal: SecureSMTPError | None = None
        # How many replies to the group are still to be checked, and those of them that were read.
        self._replies_left = 0
        self._replies: tuple[RawReply, ...] = ()

    def send_envelope(self) -> Dialogue[None]:
        """Write the envelope in one group."""
        lines = [_RSET] if self._starts_with_reset else []
        lines.append(mail_command(self._submission, self._session.capabilities))
        dsn = self._submission.extensions.dsn
        lines += [rcpt_command(mailbox, dsn) for mailbox in self._submission.recipients]
        if self._with_envelope:
            lines.append(_bdat(self.content) if self._by_chunk else _DATA)
        self._session.transactions += 1
        self._session.needs_reset = False
        self._replies_left = len(lines)
        yield CommandGroup(tuple(lines), Stage.MAIL)
        if self._with_envelope and self._by_chunk:
            yield from self.write_content(iter((self.content.whole_chunk(),)), coalesce=self._coalesce)

    def send_content(self) -> Dialogue[None]:
        """
        Read the replies to the envelope, and write the content.

        Raises:
            RefusedError: The server refused the message.
        """
        is_content_expected = False
        try:
            yield from self._read_envelope_replies()
            if not self._by_chunk and (self._with_envelope or self._refusal is None):
                is_content_expected = yield from self._read_data_reply()
        except SecureSMTPError as error:
            if self._refusal is None or (error.reply is not None and is_closing(error.reply.code)):
                raise
            raise self._refusal from error
        if self._refusal is not None:
            self._session.needs_reset = True
            if not is_content_expected:
                raise keep_session(self._refusal)
        if self._by_chunk:
            yield CommandGroup((_bdat(self.content),), Stage.CONTENT)
            yield from self.write_content(self.content.chunk(), coalesce=self._coalesce)
        else:
            # After 354 the server waits for content. A content that no recipient may get is empty (RFC 2920 §3.1).
            blocks = self.content.blocks() if self._refusal is None else iter((EMPTY,))
            yield from self.write_content(blocks, coalesce=self._coalesce)

    def _read_data_reply(self) -> Dialogue[bool]:
        """Send DATA if that was not done yet, read the reply, and return whether the server waits for the content."""
        if self._with_envelope:
            reply = check_reply((yield from self._receive(Stage.DATA, "data")), Stage.DATA)
        else:
            reply = yield from send_command(_DATA, Stage.DATA, "data")
        if is_positive(Stage.DATA, reply.code):
            return True
        self._refusal = self._refusal or refusal_error(DataRefusedError, Stage.DATA, reply)
        return False

    def read_result(self) -> Dialogue[TransactionResult]:
        """
        Read all replies that are still due.

        Raises:
            RefusedError: The server refused the message.
            OutcomeUnknownError: The message may have been delivered.
        """
        try:
            if self._with_envelope and self._by_chunk:
                yield from self._read_envelope_replies()
            reply = check_final_reply((yield from self._receive(Stage.CONTENT, "final")))
        except RefusedError:
            raise
        except SecureSMTPError as error:
            raise self.error_after(error) from error
        if self._by_chunk:
            self._session.needs_reset = is_refusal(reply.code)
        if self._refusal is None:
            return self._result_of_content(reply)
        # The envelope was refused, so the content must be refused too.
        if not is_refusal(reply.code):
            message = "the server accepted the content although it had refused the message"
            contradiction = ProtocolError(message, stage=Stage.CONTENT, reply=reply)
            raise self.error_after(contradiction) from contradiction
        if is_closing(reply.code):
            raise self._refusal from server_closing_error(reply, Stage.CONTENT)
        raise keep_session(self._refusal)

    def _result_of_content(self, reply: Reply) -> TransactionResult:
        try:
            return self.require_accepted(self._recipients, reply)
        except DataRefusedError as error:
            if self._by_chunk and is_command_unsupported(reply.code):
                self._session.chunking_refused = reply
                if not self.content.is_binary:
                    error.retryable, error.hint = True, _BDAT_REFUSED
                # A server that does not know BDAT reads the chunk as commands, and replies to each line of it. With
                # others in flight, the session goes on: only its replies say what became of them.
                if not self._coalesce and not is_bad_sequence(reply.code):
                    end_session(error)
            raise

    def error_after(self, error: SecureSMTPError) -> SecureSMTPError:
        """Return the error for the message if *error* ended the connection before its result was read."""
        # With DATA, a refused message is an empty content: whatever becomes of it, nobody gets the message. A chunk is
        # the message itself, and a server that refused the envelope may still accept it.
        is_empty = self.is_fully_sent and not self._by_chunk
        return self._refusal if is_empty and self._refusal else super().error_after(error)

    def _read_envelope_replies(self) -> Dialogue[None]:
        """Read the replies up to the last recipient's, and keep what forbids the content."""
        if self._starts_with_reset:
            _, self._refusal = yield from self._read_envelope_reply(Stage.RSET)
        reply, error = yield from self._read_envelope_reply(Stage.MAIL)
        if not is_positive(Stage.MAIL, reply.code):
            self._refusal = self._refusal or error or refusal_error(SenderRefusedError, Stage.MAIL, reply)
        results, budget, last_error = list[Recipient](), ReplyBudget(), None
        for mailbox in self._submission.recipients:
            reply, error = yield from self._read_envelope_reply(Stage.RCPT)
            results.append(to_recipient(mailbox, budget.cut(reply)))
            last_error = last_error or error
        self._recipients = tuple(results)
        refusal = recipients_error(results, allow_some=self._partial == "allow")
        self._refusal = self._refusal or (refusal and last_error) or refusal

    def _read_envelope_reply(self, stage: Stage) -> Dialogue[tuple[Reply, SecureSMTPError | None]]:
        """Return the next reply, and the error that it means for the message if no later reply decides otherwise."""
        try:
            return check_reply((yield from self._receive(stage)), stage), None
        except (AuthenticationError, ConnectError) as error:
            # After its content was written, all replies to a transaction are read: a server was seen to reply 421 to
            # RCPT and then accept the chunk behind it.
            if error.reply is None or (not self.is_fully_sent and isinstance(error, ConnectError)):
                raise
            return error.reply, error

    def _receive(self, stage: Stage, limit: Limit = "command") -> Dialogue[RawReply]:
        """Return the next reply, whatever its code."""
        self._replies_left -= 1
        if not self._replies:
            self._replies = yield from receive_some(Receive(stage, limit, max(self._replies_left, 0)))
        raw, self._replies = self._replies[0], self._replies[1:]
        return raw


def run_pipelined(transaction: Transaction) -> Dialogue[TransactionResult]:
    """Send one message in as few writes as possible, and return its result."""
    yield from transaction.send_envelope()
    if not transaction.is_fully_sent:
        yield from transaction.send_content()
    return (yield from transaction.read_result())


def run_lockstep(
    session: Session, submission: Submission, partial: Partial, progress: Progress
) -> Dialogue[TransactionResult]:
    """Send one message and wait for the reply to each command before the next one."""
    _check_chunking(session, submission.content)
    session.transactions += 1
    reply = yield from send_command(mail_command(submission, session.capabilities), Stage.MAIL)
    if not is_positive(Stage.MAIL, reply.code):
        raise keep_session(refusal_error(SenderRefusedError, Stage.MAIL, reply))
    recipients, budget = list[Recipient](), ReplyBudget()
    for mailbox in submission.recipients:
        reply = yield from send_command(rcpt_command(mailbox, submission.extensions.dsn), Stage.RCPT)
        recipients.append(to_recipient(mailbox, budget.cut(reply)))
    if refusal := recipients_error(recipients, allow_some=partial == "allow"):
        yield from _abort_transaction(refusal)
    content = submission.content
    if content.is_binary:
        yield CommandGroup((_bdat(content),), Stage.CONTENT)
        yield from progress.write_content(content.chunk())
    else:
        reply = yield from send_command(_DATA, Stage.DATA, "data")
        if not is_positive(Stage.DATA, reply.code):
            yield from _abort_transaction(refusal_error(DataRefusedError, Stage.DATA, reply))
        yield from progress.write_content(content.blocks())
    try:
        reply = yield from read_final_reply()
    except SecureSMTPError as error:
        raise outcome_unknown_error(error) from error
    try:
        return progress.require_accepted(tuple(recipients), reply)
    except DataRefusedError as error:
        if content.is_binary and is_session_usable(error):
            end_session(error)
            if is_command_unsupported(reply.code):
                # A server that does not know BDAT reads the chunk as commands, and replies to each line of it.
                session.chunking_refused = reply
            else:
                # RFC 3030 §2: after a refused chunk, RSET comes before any other command.
                yield from _abort_transaction(error)
        raise


def _bdat(content: Content) -> Line:
    return line(b"BDAT", b"%d" % content.size, b"LAST")


def _check_chunking(session: Session, content: Content) -> None:
    # RFC 3030 §3: a binary content is sent by BDAT only.
    if content.is_binary and not session.can_chunk:
        message = "the message is binary, and the server has refused BDAT although it offers CHUNKING"
        raise MessageError(message, stage=Stage.MAIL, hint="encode the parts as base64, and leave out binary")


def _abort_transaction(refusal: RefusedError) -> Dialogue[None]:
    """Abort the transaction and raise *refusal*; if that fails, the failure is its cause."""
    try:
        yield from reset()
    except SecureSMTPError as error:
        raise refusal from error
    raise keep_session(refusal)
