"""
Commands, contents and replies over one channel: in which order bytes are written and read, and what an error does.

How it works: a server may answer before it has read everything, and stop reading until its answer is read (RFC 2920
§3.1). So replies are read while bytes are written. When a connection is lost, replies that came before are read first,
because they say what became of the messages in flight. Reading and writing share that, so the file is longer than 300
lines.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from securesmtp._interrupts import SuppressErrors, raise_if_interrupt
from securesmtp._protocol.effects import Block, CommandGroup, Receive, Send
from securesmtp._protocol.failures import early_reply_error
from securesmtp._settings import PORT_IMPLICIT
from securesmtp._transport.channel import PAUSE, READ, WRITE, Channel, Steps
from securesmtp._transport.connect_errors import HINTS, describe
from securesmtp._values import Stage
from securesmtp.errors import (
    ConnectError,
    DeadlineExceededError,
    ProtocolError,
    SecureSMTPError,
    WrongTLSModeError,
)

if TYPE_CHECKING:
    import socket

    from securesmtp._protocol.exchange import Exchange
    from securesmtp._protocol.wire import RawReply
    from securesmtp._transport.deadline import StepLimit

# RFC 8446 §5.1: what one TLS record holds.
_RECORD = 16384
# Seconds to read what has come already when a connection is lost: a server that floods is not read to its end.
_LAST_WORDS = 1.0
_PIPELINED = 'if every message ends like this, the server may not take commands in one go: try pipelining="off"'


class Transfer:
    """
    The bytes and replies of one connection.

    Attributes:
        exchange: What was written, and which replies are due.
        channel: The socket.
        limit: How long the current step may take.
        failure: What ended the connection within the current dialogue, raised again by each later step of it.
        was_silent: Whether a look has shown that nothing unread has come, and nothing was written since.
    """

    def __init__(self, exchange: Exchange, channel: Channel, limit: StepLimit) -> None:
        """Transfer nothing yet."""
        self.exchange, self.channel, self.limit = exchange, channel, limit
        self.failure: SecureSMTPError | None = None
        self.was_silent = False
        # Whether the replies that are due answer commands of one group (RFC 2920).
        self._is_pipelined = False

    # What is sent.

    def send_command(self, effect: Send) -> Steps[None]:
        """Write one command."""
        self.begin(effect.stage, "command")
        self._check_unsolicited()
        self._is_pipelined = False
        yield from self._write(self.exchange.queue_command(effect.line))

    def queue(self, group: CommandGroup) -> None:
        """Hold back the commands of *group* until what follows them is known."""
        self.begin(group.stage, "command")
        self._check_unsolicited()
        self._is_pipelined = len(group.lines) + self.exchange.commands_unanswered > 1
        self.exchange.queue_group(group)

    def send_block(self, block: Block) -> Steps[bool | None]:
        """Write one block of a content, as `Block` says."""
        self.begin(Stage.CONTENT, "block")
        # After a 354, a content is written alone: all replies to the commands before it have come.
        self._is_pipelined = self._is_pipelined and self.exchange.has_held_commands
        if self.exchange.queue_content(block):
            # None instead of False: a dialogue may delegate to an iterator, which accepts only None.
            return (yield from self._flush()) or None
        return None

    def _flush(self) -> Steps[bool]:
        """
        Write what was held back; if the server refuses a content before its end, raise that.

        Return True if only a part was written and replies are waiting: nothing more can be written.
        """
        if self.exchange.holds_a_block:
            # Before the write, so that an interrupt here changes nothing: a fast server takes 25 MB without a wait.
            yield PAUSE
        data, must_be_silent = self.exchange.take_buffer()
        is_lost = is_early = False
        try:
            is_early = must_be_silent and self.has_unread()
            if not is_early:
                yield from self._write(data)
        except OSError as raised:
            error = self.translate(raised)
            # The server may have said why before it closed.
            is_lost = self.fail(error)
            if not is_lost:
                raise error from error.__cause__
        if is_early or self.exchange.is_answered_early:
            effect = Receive(Stage.CONTENT)
            raise early_reply_error((self.next_replies(effect) or (yield from self.wait_for_replies(effect)))[0])
        return is_lost

    def _write(self, data: memoryview) -> Steps[None]:
        exchange = self.exchange
        exchange.release(data)
        self.was_silent = False
        while data:
            # One TLS record at a time: the server can use no part of an unfinished record (RFC 8446 §5.1).
            sent = self._write_record(data[:_RECORD])
            data = data[sent:]
            # A server that has refused may read no more: its reply is read before the write can time out.
            while data and self._read_available():
                if exchange.next_reply_ends_write:
                    return
                self._keep_replies()
                if exchange.has_surplus:
                    exchange.refuse_unsolicited(self.limit.stage)
                self.limit.left()
                if sent:
                    # One read for each record, as long as there is room: more replies at once would have to be kept.
                    break
            if data and not sent:
                yield READ | WRITE

    def _write_record(self, record: memoryview) -> int:
        """Write *record*, and return how much of it was written: 0 if there is no room."""
        # Counted first: an interrupt must not leave the count below what the server has.
        self.exchange.written += len(record)
        try:
            sent = self.channel.write(record)
        except OSError:
            self.exchange.written -= len(record)
            raise
        self.exchange.written -= len(record) - sent
        return sent

    # What is received.

    def next_replies(self, effect: Receive) -> tuple[RawReply, ...] | None:
        """Return the next replies, as `Receive` says, if one has come; None if it has to be waited for."""
        self.limit.enter(effect.stage, effect.limit)
        raw = self.exchange.next_reply()
        return None if raw is None else self._with_more(raw, effect)

    def _with_more(self, raw: RawReply, effect: Receive) -> tuple[RawReply, ...]:
        self.channel.note_reply()
        return (raw, *self.exchange.remembered_replies(effect.more)) if effect.more else (raw,)

    def wait_for_replies(self, effect: Receive) -> Steps[tuple[RawReply, ...]]:
        """Wait for the next reply, which has not come yet, and return it with what `Receive` says."""
        self.limit.enter(effect.stage, effect.limit)
        exchange = self.exchange
        # If only what is held back can bring a reply, it is written first.
        if exchange.has_held_bytes and not exchange.replies_due:
            self._check()
            self._check_unsolicited()
            yield from self._flush()
        # Asked again: what was just written may have been answered meanwhile.
        while (raw := exchange.next_reply()) is None:
            try:
                self._check()
                # Wait before reading, unless there is something to write or TLS has bytes already.
                has_come = (exchange.has_held_bytes or self.channel.has_buffered) and self._read_available()
                if has_come:
                    self.limit.left()
                elif not exchange.has_held_bytes:
                    yield from self._wait_and_read()
            except OSError as raised:
                error = self.translate(raised)
                # A reply that has come already counts, whatever ended the wait for it.
                if not self.fail(error):
                    raise error from error.__cause__
            else:
                if not has_come and exchange.has_held_bytes:
                    yield from self._flush()
        return self._with_more(raw, effect)

    def _wait_and_read(self) -> Steps[None]:
        try:
            self.connected_socket()
            yield READ
            self._read_available()
        except OSError as raised:
            error = self.translate(raised)
            if self.limit.stage is Stage.GREETING and self.exchange.tls is None and not self.exchange.has_unread:
                hint = 'if this port is for implicit TLS (usually 465), use tls="implicit"'
                if self.channel.port == PORT_IMPLICIT:
                    message = "the server waits for TLS on this port"
                    raise WrongTLSModeError(message, stage=Stage.GREETING, hint=hint) from error
                error.hint = hint
            raise error from error.__cause__

    def is_silent(self) -> bool:
        """Return whether nothing has come that no reply has used; what is sent next needs no second look."""
        self.was_silent = not self.has_unread()
        return self.was_silent

    def has_unread(self) -> bool:
        """Return whether the server has sent something that no reply has used; read what has come first."""
        return self._read_available() or self.exchange.has_unread

    def _read_available(self) -> bool:
        """Read what has come, without waiting; return whether anything has."""
        if self.channel.sock is None:
            self.connected_socket()
        data = self.channel.read()
        if data is None:
            return False
        self.exchange.feed(data)
        return True

    def _keep_replies(self) -> None:
        if self.exchange.keep_replies():
            self.channel.note_reply()

    def _read_more(self) -> bool:
        """Read once, unless more than the due replies has come; return whether anything was read."""
        if self.exchange.has_surplus or not self._read_available():
            return False
        self._keep_replies()
        return True

    def _check_unsolicited(self) -> None:
        """Refuse to go on if the server has sent more than was due."""
        self.connected_socket()
        # With messages in flight, replies are read when they are waited for: a look for each message costs too much.
        if self.was_silent or (self.exchange.replies_due and not self.exchange.can_have_surplus):
            return
        self._keep_replies()
        while self._read_more():
            self.limit.left()
        self.exchange.check_unsolicited(self.limit.stage)

    # Limits and errors.

    def begin(self, stage: Stage, name: str) -> None:
        """
        Begin a step at *stage*, within the field *name* of `Timeouts`.

        Raises:
            ConnectError: The connection was aborted.
            DeadlineExceededError: The deadline of the send has passed.
        """
        self.limit.enter(stage, name)
        self._check()

    def connected_socket(self) -> socket.socket:
        """
        Return the socket.

        Raises:
            SecureSMTPError: There is none; it is the error that ended the connection.
        """
        if self.channel.sock is None:
            message = f"the connection is closed{self.exchange.close_reason or ''}"
            raise self.failure or ConnectError(message, retryable=True)
        return self.channel.sock

    def fail(self, error: SecureSMTPError) -> bool:
        """Close because of *error*, and return whether replies came before, which can still be read."""
        # What follows a malformed reply cannot be split into replies.
        if not isinstance(error, ProtocolError):
            self._read_last_words()
        self.exchange.drop_unread()
        self.exchange.end(error)
        self.failure = self.failure or error
        self.channel.close()
        return self.exchange.has_kept_replies and not isinstance(error, ProtocolError)

    def close_ended(self) -> None:
        """Close the channel of an exchange that has ended."""
        if self.exchange.is_closing and self.channel.sock is not None:
            # Replies to what was in flight may have come with the 421.
            self._read_last_words()
        self.channel.close()

    def translate(self, error: OSError) -> SecureSMTPError:
        """Return *error* of a socket or of TLS as one of ours; raise it again if a signal handler raised it."""
        raise_if_interrupt(error)
        stage = self.limit.stage
        if isinstance(error, SecureSMTPError):
            # The readers of replies and TLS records do not know the stage.
            if error.stage is Stage.UNKNOWN:
                error.stage = stage
            if isinstance(error, DeadlineExceededError) and self._is_pipelined:
                error.hint = _PIPELINED
            return error
        hint = HINTS.get(type(error)) if stage is Stage.CONNECT else None
        ours = ConnectError(f"the connection failed: {describe(error)}", stage=stage, retryable=True, hint=hint)
        ours.__cause__ = error
        return ours

    def _check(self) -> None:
        if self.channel.is_aborted:
            self.channel.refuse_if_aborted()
        self.limit.check()

    def _read_last_words(self) -> None:
        until = time.monotonic() + _LAST_WORDS
        with SuppressErrors(OSError):
            self._keep_replies()
            while time.monotonic() < until and self._read_more():
                pass
