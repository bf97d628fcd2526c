"""
The account of one connection: what was sent, which replies are owed, what came early. Bytes in, bytes out, no I/O.

How it works: the commands of a group, and the content behind them, are held back and leave in one write. Each command
that has left is owed a reply, and replies come in the order of the commands. A reply that comes before the bytes it
answers have left answers nothing. In the clear, one EHLO and one STARTTLS leave and no more. Once the exchange has
ended nothing leaves; replies that came before can still be read.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.failures import server_closing_error
from securesmtp._protocol.replies import is_closing, is_refusal, is_start_mail_input
from securesmtp._protocol.wire import RawReply, ReplyReader
from securesmtp.errors import ConnectError, DowngradeError, ProtocolError, TLSError

if TYPE_CHECKING:
    from securesmtp._protocol.effects import Block, CommandGroup
    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import Line
    from securesmtp._values import Stage, TLSInfo
    from securesmtp.errors import SecureSMTPError

# Bytes kept of replies that came while a group was written: this many in all, and this many for each reply.
_MAX_KEPT, _MAX_REPLY = 1 << 18, 256


class _ContentEnd(Enum):
    """Where the end of a content is that a 354 has asked for: an answer to it that comes before it has left is none."""

    NONE = auto()
    HELD = auto()
    RELEASED = auto()


class EarlyReplies:
    """Replies that came before they were asked for, in their order; bounded."""

    def __init__(self) -> None:
        """Keep none."""
        self._replies: deque[RawReply] = deque()
        self._size = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._replies)

    def keep(self, raw: RawReply) -> None:
        """
        Add *raw*, cut to what a caller is told of it: a server may say much.

        Raises:
            ProtocolError: The replies are longer than any server needs.
        """
        self._replies.append(raw.cut())
        self._size += _size(self._replies[-1])
        if self._size > _MAX_KEPT + len(self._replies) * _MAX_REPLY:
            message = "the replies to what is in flight are longer than any server needs"
            raise ProtocolError(message)

    def take(self) -> RawReply:
        """Remove the oldest and return it."""
        raw = self._replies.popleft()
        self._size -= _size(raw)
        return raw


class Exchange:
    """
    Both directions of one connection.

    Attributes:
        tls: The evidence of TLS, once it has begun.
        position: Bytes of commands and contents so far, those that are held back included.
        written: Those of them that have left.
        close_reason: Why nothing is sent any more, to be added to a message; None while the exchange goes on.
        is_closing: Whether the server has said that it closes (RFC 5321 §3.8).
    """

    def __init__(self, memory: Memory | None = None) -> None:
        """Wait for the greeting; *memory* is the mailer's, of its secrets."""
        self.tls: TLSInfo | None = None
        self.position = self.written = 0
        self.close_reason: str | None = None
        self.is_closing = False
        self._reader = ReplyReader(memory)
        self._sent_in_clear: set[bytes] = set()
        self._write_buffer = bytearray()
        # Stream offset at which each unanswered command ends, its content included; the greeting is owed at once.
        self._command_ends: deque[int] = deque([0])
        # The last of them that are in the write buffer.
        self._unflushed = 0
        self._content_end = _ContentEnd.NONE
        self._early = EarlyReplies()

    @property
    def ended(self) -> bool:
        """Whether nothing is sent any more."""
        return self.close_reason is not None

    # What is sent.

    @property
    def is_holding(self) -> bool:
        """Whether bytes are held back."""
        return bool(self._write_buffer)

    @property
    def has_unflushed(self) -> bool:
        """Whether a reply is owed to what is held back."""
        return self._unflushed > 0

    @property
    def replies_due(self) -> int:
        """How many replies are owed to what has left."""
        return len(self._command_ends) - self._unflushed

    @property
    def commands_open(self) -> int:
        """How many commands have no reply, those that are held back included."""
        return len(self._command_ends)

    @property
    def is_idle(self) -> bool:
        """Whether all that was to be sent has left, and all that was owed has come."""
        return not self.replies_due and self.written == self.position

    def queue_command(self, line: Line) -> memoryview:
        """Return the bytes of one command that is sent alone, and owed its reply from now on."""
        self._reader.redact(line)
        self.position += len(line.data)
        self._command_ends, self._unflushed = deque([self.position]), 0
        return memoryview(line.data)

    def queue_group(self, group: CommandGroup) -> None:
        """Hold back the commands of *group* (RFC 2920 §3.1)."""
        # Written with the content that follows it, if one does: a second small write would make a server that has
        # Nagle's algorithm keep its answer back until we acknowledge the first (measured: 40 ms to Postfix).
        for line in group.lines:
            self._hold(line)
            self._command_ends.append(self.position)
            # After it: an interrupt in between must not leave more of them than there are commands.
            self._unflushed += 1

    def queue_content(self, block: Block) -> bool:
        """Hold back *block* of a content, and return whether the write buffer is to be written now."""
        self._hold(block)
        self._command_ends[-1] = self.position
        if not block.coalesce or len(self._write_buffer) >= BLOCK:
            return True
        if not self._unflushed:
            self._unflushed, self._content_end = 1, _ContentEnd.HELD
        return False

    def take_buffer(self) -> tuple[memoryview, bool]:
        """Return what is held back, and whether a reply that came before it leaves would answer nothing."""
        # A view, so that no frame of a traceback shows the bytes: they may be a message.
        data, self._write_buffer, self._unflushed = memoryview(self._write_buffer), bytearray(), 0
        follows_354 = self._content_end is _ContentEnd.HELD
        self._content_end = _ContentEnd.RELEASED if follows_354 else _ContentEnd.NONE
        # The replies to the commands of a group may come at any time; the one to a content may not.
        return data, follows_354 or self.replies_due <= 1

    def release(self, data: memoryview) -> None:
        """
        Let *data*, the next bytes, leave: the one gate. In the clear, one EHLO and one STARTTLS pass (STLS-01).

        Raises:
            ConnectError: What was to leave before has not left whole: the server would take *data* for the rest of it.
            TLSError: It may not be sent in the clear.
        """
        if self.written + len(data) != self.position:
            message = "the server answered before what it was sent was complete"
            raise ConnectError(message, retryable=True)
        if self.tls is None:
            verb = bytes(data).partition(b" ")[0].strip()
            if verb not in {b"EHLO", b"STARTTLS"} or verb in self._sent_in_clear or bytes(data).count(b"\n") != 1:
                message = "only one EHLO and one STARTTLS are written in the clear"
                raise TLSError(message)
            self._sent_in_clear.add(verb)

    def _hold(self, piece: Line | Block) -> None:
        # Not its bytes, which a traceback with local variables would show.
        self._write_buffer += piece.data
        self.position += len(piece.data)

    # What is received.

    @property
    def has_unread(self) -> bool:
        """Whether bytes have come that no reply has used."""
        return self._reader.pending

    @property
    def has_early_replies(self) -> bool:
        """Whether replies wait that were not asked for yet."""
        return len(self._early) > 0

    @property
    def has_surplus(self) -> bool:
        """Whether the server has said more than it owes."""
        return self._reader.pending and len(self._early) >= self.replies_due

    @property
    def is_content_open(self) -> bool:
        """Whether the next reply is to a content that has not left to its end: after one, the rest must not leave."""
        return self.replies_due <= 1 or (
            self._content_end is _ContentEnd.RELEASED and self._command_ends[0] > self.written
        )

    @property
    def is_answered_early(self) -> bool:
        """Whether a content was answered that has not left to its end."""
        return self.is_content_open and (self.has_early_replies or self.has_unread)

    def feed(self, data: bytes) -> None:
        """
        Take what the server sent.

        Raises:
            ProtocolError: It sends more than it was asked.
        """
        self._reader.feed(data)

    def next_reply(self) -> RawReply | None:
        """
        Return the next reply that is owed; None where it has not come whole, or none is owed.

        Raises:
            ProtocolError: It is malformed, or it answers what has not left.
        """
        if not self.replies_due:
            return None
        raw = self._early.take() if self._early else self._next_checked(0)
        if raw is not None:
            # RFC 5321 §4.3.2: 354 is half a reply; the other half comes when the content has been sent.
            if not is_start_mail_input(raw.code):
                self._command_ends.popleft()
            self.is_closing = self.is_closing or is_closing(raw.code)
        return raw

    def keep_early_replies(self) -> bool:
        """Keep the replies to what has left that have come whole; return whether there were any."""
        before = len(self._early)
        while len(self._early) < self.replies_due and (raw := self._next_checked(len(self._early))) is not None:
            self._early.keep(raw)
        return len(self._early) > before

    def check_unsolicited(self, stage: Stage) -> None:
        """
        Refuse what nobody asked for.

        Raises:
            DowngradeError: It came in the clear, where anybody may have sent it.
            ConnectError: It is 421, by which the server closes the session (RFC 5321 §3.8).
            ProtocolError: It is anything else.
        """
        if self.has_surplus and self._content_end is not _ContentEnd.HELD:
            self.refuse_unsolicited(stage)

    def refuse_unsolicited(self, stage: Stage) -> NoReturn:
        """Raise the error for what nobody asked for, as `check_unsolicited` does."""
        raw = self._reader.next()
        if self.tls is None:
            message = "the server spoke out of turn, in the clear"
            raise DowngradeError(message, stage=stage)
        if raw is not None and is_closing(raw.code):
            raise server_closing_error(raw.reply(), stage)
        message = "the server spoke out of turn"
        raise ProtocolError(message, stage=stage)

    def _next_checked(self, number: int) -> RawReply | None:
        """Return the next reply, to the unanswered command of that *number*."""
        raw = self._reader.next()
        # A chunk may be refused before it was read; a server that accepts what has not left answers something else.
        if raw is not None and not is_refusal(raw.code) and self._command_ends[number] > self.written:
            message = f'"{raw.reply()}" came before what it answers was written'
            raise ProtocolError(message)
        return raw

    # Beginning of TLS, and end.

    def begin_tls(self) -> None:
        """Forget what came in the clear (RFC 3207 §4.2)."""
        self._reader.clear()

    def end(self, error: SecureSMTPError | None = None) -> None:
        """
        Send nothing more, and count nothing of what is held back as sent; *error* is the reason, if there is one.

        Replies that have come can still be read.
        """
        if self.close_reason is None or (error is not None and not self.close_reason):
            self.close_reason = f": {error.args[0]}" if error is not None else ""
        self._write_buffer = bytearray()
        while self._unflushed:
            self._unflushed -= 1
            self._command_ends.pop()

    def drop_unread(self) -> None:
        """Forget what has come and is not a whole reply: nothing behind it would be understood."""
        self._reader.clear()


def _size(raw: RawReply) -> int:
    # A bytes object has 33 bytes of its own, and a place in the tuple.
    return len(raw.challenge) + sum(len(line) + 41 for line in raw.lines)
