"""
The account of one connection: what was written, and which replies are due. Bytes in, bytes out, no I/O.

How it works: the commands of a group, and the content behind them, are held back and written in one go. A reply is due
to each command that was written, and replies come in the order of the commands. A positive reply to bytes that were not
written yet is an error. In the clear, one EHLO and one STARTTLS are written and nothing else. After the end nothing is
written; replies that came before it can still be read. All of it is one account, so the file is longer than 300 lines.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.failures import server_closing_error
from securesmtp._protocol.kept_replies import KeptReplies
from securesmtp._protocol.replies import SERVICE_CLOSING, START_MAIL_INPUT, is_closing, is_refusal
from securesmtp._protocol.wire import ReplyReader
from securesmtp.errors import ConnectError, DowngradeError, ProtocolError, TLSError

if TYPE_CHECKING:
    from securesmtp._protocol.effects import Block, CommandGroup
    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import Line, RawReply
    from securesmtp._values import Stage, TLSInfo
    from securesmtp.errors import SecureSMTPError


class _ContentEnd(Enum):
    """Where the end of a content is that the server asked for by 354; nothing can answer it before it is written."""

    NONE = auto()
    HELD = auto()
    RELEASED = auto()


class Exchange:
    """
    Both directions of one connection.

    Attributes:
        tls: The TLS session; None in the clear.
        position: Bytes of commands and contents so far, held ones included.
        written: Bytes of them that were written.
        close_reason: The reason for the end, to be added to an error's message; None before the end.
        is_closing: Whether the server replied that it closes the session (RFC 5321 §3.8).
    """

    def __init__(self, memory: Memory | None = None) -> None:
        """Wait for the greeting; *memory* has the secrets that the mailer has sent on any connection."""
        self.tls: TLSInfo | None = None
        self.position = self.written = 0
        self.close_reason: str | None = None
        self.is_closing = False
        self._reader = ReplyReader(memory)
        self._sent_in_clear: set[bytes] = set()
        self._write_buffer = bytearray()
        # Stream offset at which each unanswered command ends, content included. The greeting is due from the start.
        self._command_ends: deque[int] = deque([0])
        # How many of these commands are held back: the last ones.
        self._commands_held = 0
        self._content_end = _ContentEnd.NONE
        self._kept = KeptReplies()

    @property
    def ended(self) -> bool:
        """Whether nothing more may be written."""
        return self.close_reason is not None

    # What is written.

    @property
    def has_held_bytes(self) -> bool:
        """Whether bytes are held back."""
        return bool(self._write_buffer)

    @property
    def has_held_commands(self) -> bool:
        """Whether commands are held back, or the end of a content."""
        return self._commands_held > 0

    @property
    def replies_due(self) -> int:
        """How many replies are due to what was written."""
        return len(self._command_ends) - self._commands_held

    @property
    def commands_unanswered(self) -> int:
        """How many commands have no reply, held ones included."""
        return len(self._command_ends)

    @property
    def is_idle(self) -> bool:
        """Whether everything was written, and every reply that was due was read."""
        return self.written == self.position and not self.replies_due

    def queue_command(self, line: Line) -> memoryview:
        """Return the bytes of one command that is written alone; its reply is due from now on."""
        self._reader.redact(line)
        self.position += len(line.data)
        self._command_ends, self._commands_held = deque([self.position]), 0
        return memoryview(line.data)

    def queue_group(self, group: CommandGroup) -> None:
        """Hold back the commands of *group* (RFC 2920 §3.1)."""
        # A content that follows is written with it: after a second small write, a server with Nagle's algorithm delays
        # its reply until we acknowledge the first (measured: 40 ms to Postfix).
        for line in group.lines:
            # Not a variable for its bytes, which a traceback would show.
            self._write_buffer += line.data
            self.position += len(line.data)
            self._command_ends.append(self.position)
            # Last, so that an interrupt in between cannot make it more than there are commands.
            self._commands_held += 1

    def queue_content(self, block: Block) -> bool:
        """Hold back *block* of a content, and return whether everything held is to be written now."""
        self._write_buffer += block.data
        self.position += len(block.data)
        self._command_ends[-1] = self.position
        if not block.coalesce or self.holds_a_block:
            return True
        if not self._commands_held:
            self._commands_held, self._content_end = 1, _ContentEnd.HELD
        return False

    @property
    def holds_a_block(self) -> bool:
        """Whether at least one block of content is to be written now."""
        return len(self._write_buffer) >= BLOCK

    def take_buffer(self) -> tuple[memoryview, bool]:
        """Return everything held, to be written now, and whether no reply may come before it is written."""
        # A view, so that no frame of a traceback shows the bytes: they may be a message.
        data, self._write_buffer, self._commands_held = memoryview(self._write_buffer), bytearray(), 0
        follows_354 = self._content_end is _ContentEnd.HELD
        self._content_end = _ContentEnd.RELEASED if follows_354 else _ContentEnd.NONE
        # The commands of a group may be answered one by one while it is written; a content is answered at its end.
        return data, follows_354 or self.replies_due <= 1

    def release(self, data: memoryview) -> None:
        """
        Allow *data*, the next bytes, to be written. In the clear, one EHLO and one STARTTLS pass (STLS-01).

        Raises:
            ConnectError: The exchange has ended; or something before *data* was not written whole, so that the server
                would read *data* as the rest of it.
            TLSError: It may not be written in the clear.
        """
        if self.close_reason is not None:
            message = f"the connection is closed{self.close_reason}"
            raise ConnectError(message, retryable=True)
        if self.written + len(data) != self.position:
            message = "the server replied before a command was fully sent"
            raise ConnectError(message, retryable=True)
        if self.tls is None:
            verb = bytes(data).partition(b" ")[0].strip()
            if verb not in {b"EHLO", b"STARTTLS"} or verb in self._sent_in_clear or bytes(data).count(b"\n") != 1:
                message = "only one EHLO and one STARTTLS are written in the clear"
                raise TLSError(message)
            self._sent_in_clear.add(verb)

    # What is received.

    @property
    def has_unread(self) -> bool:
        """Whether bytes have come that belong to no reply that was read or kept."""
        return self._reader.pending

    @property
    def has_kept_replies(self) -> bool:
        """Whether replies are kept that were not read yet."""
        return len(self._kept) > 0

    @property
    def has_surplus(self) -> bool:
        """Whether the server has sent more than the replies that are due."""
        return self._reader.pending and len(self._kept) >= self.replies_due

    @property
    def can_have_surplus(self) -> bool:
        """Whether what has come may be more than the replies that are due: each of them has at least one line."""
        return not self._reader.has_at_most(self.replies_due - len(self._kept))

    @property
    def next_reply_ends_write(self) -> bool:
        """Whether the next reply answers the bytes that are being written, so that the rest must not be written."""
        return self.replies_due <= 1 or (
            self._content_end is _ContentEnd.RELEASED and self._command_ends[0] > self.written
        )

    @property
    def is_answered_early(self) -> bool:
        """Whether a reply came before the bytes that it answers were written whole."""
        return self.next_reply_ends_write and (self.has_kept_replies or self.has_unread)

    def feed(self, data: bytes) -> None:
        """
        Add *data* from the server.

        Raises:
            ProtocolError: It is more than the replies that are due can have.
        """
        self._reader.feed(data)

    def next_reply(self) -> RawReply | None:
        """
        Return the next reply that is due, or None if it is not complete or none is due.

        Raises:
            ProtocolError: It is malformed, or positive before its command was written.
        """
        if len(self._command_ends) == self._commands_held:
            return None
        raw = self._kept.take() if self._kept else self._next_checked(0)
        if raw is not None:
            self._note_reply(raw)
        return raw

    def remembered_replies(self, most: int) -> list[RawReply]:
        """
        Return so many replies at *most* that are due, have come, and are none but such as came before.

        Each of them would be the result of `next_reply`, which would not raise an error.
        """
        found: list[RawReply] = []
        ends = self._command_ends
        while len(found) < most and not self._kept and ends and ends[0] <= self.written:
            raw = self._reader.next_remembered()
            if raw is None:
                break
            self._note_reply(raw)
            found.append(raw)
        return found

    def _note_reply(self, raw: RawReply) -> None:
        # RFC 5321 §4.3.2: 354 is half a reply; the other half comes when the content has been sent.
        if raw.code != START_MAIL_INPUT:
            self._command_ends.popleft()
        if raw.code == SERVICE_CLOSING:
            self.is_closing = True

    def keep_replies(self) -> bool:
        """Keep each complete reply that is due for `next_reply`; return whether there were any."""
        before = len(self._kept)
        while len(self._kept) < self.replies_due and (raw := self._next_checked(len(self._kept))) is not None:
            self._kept.keep(raw)
        return len(self._kept) > before

    def check_unsolicited(self, stage: Stage) -> None:
        """
        Raise an error if the server has sent more than the replies that are due.

        Raises:
            DowngradeError: It came in the clear, where anyone may have sent it.
            ConnectError: It is 421: the server closes the session (RFC 5321 §3.8).
            ProtocolError: It is anything else.
        """
        if self.has_surplus and self._content_end is not _ContentEnd.HELD:
            self.refuse_unsolicited(stage)

    def refuse_unsolicited(self, stage: Stage) -> NoReturn:
        """Raise the error of `check_unsolicited`."""
        raw = self._reader.next()
        if self.tls is None:
            message = "the server sent an unsolicited reply in plaintext"
            raise DowngradeError(message, stage=stage)
        if raw is not None and is_closing(raw.code):
            raise server_closing_error(raw.reply(), stage)
        message = "the server sent an unsolicited reply"
        raise ProtocolError(message, stage=stage)

    def _next_checked(self, number: int) -> RawReply | None:
        """Return the next complete reply from the reader; it answers the unanswered command of this *number*."""
        raw = self._reader.next()
        # A server may refuse a chunk before it has read it. If it accepts what was not written, it answers something
        # else.
        if raw is not None and self._command_ends[number] > self.written and not is_refusal(raw.code):
            message = f'the reply "{raw.reply()}" came before what it answers was fully sent'
            raise ProtocolError(message)
        return raw

    # Start of TLS, and end.

    def begin_tls(self) -> None:
        """Forget bytes that came in the clear (RFC 3207 §4.2)."""
        self._reader.clear()

    def end(self, error: SecureSMTPError | None = None) -> None:
        """
        Write nothing more, and drop what is held back; *error* is the reason, if there is one.

        Replies that came before can still be read.
        """
        if self.close_reason is None or (error is not None and not self.close_reason):
            self.close_reason = f": {error.args[0]}" if error is not None else ""
        self._write_buffer = bytearray()
        while self._commands_held:
            self._commands_held -= 1
            self._command_ends.pop()

    def drop_unread(self) -> None:
        """Forget bytes that no reply was made of; replies that are kept stay."""
        self._reader.clear()
