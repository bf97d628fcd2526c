"""
What a dialogue yields, done over one channel: in which order, within which limits, and what an error does to it.

How it works: `Connection.run` performs a dialogue as steps (see `channel`), so it never waits itself. An error of the
connection is thrown into the dialogue, which knows what became of its message. An interrupt (Ctrl-C, a cancelled task)
is the loss of the connection for the dialogue, and is raised again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, assert_never

from securesmtp._protocol.effects import (
    Answer,
    Block,
    CommandGroup,
    Connect,
    Dialogue,
    IOEffect,
    Opened,
    Receive,
    Send,
    SetDeadline,
    Upgrade,
    compute,
)
from securesmtp._protocol.exchange import Exchange
from securesmtp._protocol.failures import early_reply_error, interrupt_error, is_session_usable
from securesmtp._transport.channel import HINTS, READ, WRITE, Channel, Steps, describe
from securesmtp._transport.deadline import Deadline
from securesmtp._values import Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    ProtocolError,
    SecureSMTPError,
    WrongTLSModeError,
)
from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable

    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import RawReply
    from securesmtp._settings import Settings
    from securesmtp._transport.addresses import AddressInfo

T = TypeVar("T")
# RFC 8446 §5.1: what one TLS record holds.
_RECORD = 16384
# Seconds to read what has come already when a connection is lost: a server that floods is not read to its end.
_LAST_WORDS = 1.0
# Seconds for QUIT, whose reply changes nothing.
_QUIT = 5.0
_PORT_IMPLICIT = 465
_PIPELINED = 'if every message ends like this, the server may not take commands in one go: try pipelining="off"'


class Opening:
    """Connect and read the greeting, by `connect` and `greet`: steps yield it, and are resumed with the greeting."""


OPENING = Opening()


class Connection:
    """
    One connection to the configured server.

    Attributes:
        exchange: What was sent and what is owed.
        channel: The bytes.
        overall: The limit for all of what is run, if there is one.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext, memory: Memory | None = None) -> None:
        """Be closed; *memory* is the mailer's, of its secrets."""
        self.exchange = Exchange(memory)
        self.channel = Channel(settings, context)
        self.overall: Deadline | None = None
        self._settings = settings
        self._stage, self._limit = Stage.CONNECT, "connect"
        # Made when it is first looked at: most replies are there at once.
        self._deadline: Deadline | None = None
        # Stays False unless a dialogue ends cleanly, so an interrupt anywhere leaves the connection unusable.
        self._ended_cleanly = False
        # Whether the replies that are owed are to commands of one group (RFC 2920).
        self._pipelined = False
        # A reply that the dialogue asked for and was not given yet.
        self._reply: RawReply | None = None
        # What ended the connection within the dialogue that is being run.
        self._failure: SecureSMTPError | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self.channel.sock is not None

    @property
    def is_usable(self) -> bool:
        """Whether its last dialogue ended cleanly, and the server has not said that it closes (RFC 5321 §3.8)."""
        return self._ended_cleanly and not self.exchange.is_closing

    def is_idle(self) -> bool:
        """Return whether it can carry another message: open, and with nothing unread (RPL-04)."""
        try:
            usable = self.is_open and self.is_usable and self.exchange.is_idle
            # Where it is the parent process's, nothing is read. The first write fails: a connection of this process's
            # own would carry the message that the parent is sending.
            return usable and (self.channel.is_foreign or not self._has_unread())
        except OSError as error:
            if is_interrupt(error):
                raise
            return False

    def run(self, dialogue: Dialogue[T]) -> Steps[T]:
        """
        Perform *dialogue* and return its value.

        After any error the connection is closed and nothing more is written to it, unless it is a refusal that leaves
        the session usable. A foreign exception is the loss of the connection for *dialogue*, and is raised again.
        """
        self._ended_cleanly = False
        try:
            effect = next(dialogue)
            while True:
                effect = compute(effect, dialogue)
                try:
                    answer = yield from self._perform(effect)
                except OSError as raised:
                    # Every error of ours is an OSError too (smtplib.SMTPException).
                    error = self._translate(raised)
                    self._fail(error)
                    effect = dialogue.throw(error)
                else:
                    self._reply = None
                    effect = dialogue.send(answer)
                if self.exchange.ended and self.is_open:
                    self._close_ended()
        except StopIteration as stop:
            self._ended_cleanly = not self.exchange.ended
            value: T = stop.value
            return value
        except BaseException as error:
            if is_session_usable(error):
                self._ended_cleanly = True
            else:
                self.exchange.end(error if isinstance(error, SecureSMTPError) else None)
                self._close_ended()
                if not isinstance(error, SecureSMTPError):
                    self._interrupt(dialogue, error)
            raise
        finally:
            if self.exchange.ended and self.is_open:
                self._close_ended()
            # A traceback has the message in it.
            self._reply = self._failure = None

    def _interrupt(self, dialogue: Dialogue[T], error: BaseException) -> None:
        """Let *dialogue* find out that *error* has ended its connection, and decide what became of its message."""
        # A dialogue that was interrupted itself has ended: what it is asked then changes nothing.
        with suppress(StopIteration, SecureSMTPError):
            if self._reply is not None:
                dialogue.send(self._reply)
            while True:
                dialogue.throw(interrupt_error(error, self._stage))

    def connect(self, found: Iterable[AddressInfo]) -> Steps[None]:
        """Connect to one of the addresses *found*, with TLS at once in implicit mode."""
        yield from self.channel.connect(found)
        if self._settings.mode is TLSMode.IMPLICIT:
            yield from self._begin_tls()

    def greet(self) -> Steps[RawReply]:
        """Read the greeting."""
        return (yield from self._receive(Receive(Stage.GREETING)))

    def close_gracefully(self, dialogue: Dialogue[None]) -> Steps[None]:
        """Run the last *dialogue* if the session is usable, and close whatever comes of it; nothing is waited for."""
        self.overall = Deadline("command", _QUIT)
        try:
            with suppress(SecureSMTPError):
                if self.is_idle():
                    yield from self.run(dialogue)
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket; nothing is sent, and what is held back is never counted as sent."""
        self.exchange.end()
        self.channel.close()

    def patience(self) -> float:
        """
        Return the seconds that the driver may wait now.

        Raises:
            ConnectError: The connection is closed, or was aborted.
            DeadlineExceededError: The time is up.
        """
        self.channel.refuse_if_aborted()
        if self._deadline is None:
            seconds = getattr(self._settings.timeouts, self._limit, _QUIT)
            self._deadline = Deadline(self._limit, seconds, self.overall)
        return self._deadline.left(self._stage)

    # Effects.

    def _perform(self, effect: IOEffect) -> Steps[Answer]:
        match effect:
            case Receive():
                self._reply = yield from self._receive(effect)
                return self._reply
            case CommandGroup():
                self._begin_step(effect.stage, "command")
                self._check_unsolicited()
                self._pipelined = len(effect.lines) + self.exchange.commands_open > 1
                self.exchange.queue_group(effect)
            case Block():
                # Never False: a dialogue may delegate to an iterator, which can be sent nothing but None.
                return (yield from self._send_block(effect)) or None
            case Send():
                self._begin_step(effect.stage, "command")
                self._check_unsolicited()
                self._pipelined = False
                yield from self._write(self.exchange.queue_command(effect.line))
            case SetDeadline():
                # What ended the connection for the message before is not the error of this one.
                self.overall, self._failure = Deadline(effect.limit, effect.seconds, effect.overall), None
            case Connect():
                return (yield from self._open())
            case Upgrade():
                return (yield from self._begin_tls())
            case _:  # never
                assert_never(effect)
        return None

    def _open(self) -> Steps[Opened]:
        self._begin_step(Stage.CONNECT, "connect")
        greeting: RawReply = yield OPENING
        address = str(self._live().getsockname()[0])
        literal = f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
        return Opened(greeting, self.exchange.tls, literal.encode("ascii"))

    def _begin_tls(self) -> Steps[TLSInfo]:
        """Begin TLS; bytes that came before it are an attack (RFC 3207 §6)."""
        self._begin_step(Stage.HANDSHAKE, "handshake")
        if self._settings.mode is TLSMode.STARTTLS and self._has_unread():
            message = "there is plaintext between the 220 to STARTTLS and the handshake"
            raise DowngradeError(message, stage=Stage.STARTTLS, hint="somebody may be tampering with the connection")
        self.exchange.begin_tls()
        self.exchange.tls = yield from self.channel.begin_tls()
        return self.exchange.tls

    def _send_block(self, block: Block) -> Steps[bool]:
        self._begin_step(Stage.CONTENT, "block")
        # A content that a 354 has asked for leaves when all before it is answered.
        self._pipelined = self._pipelined and self.exchange.has_unflushed
        if self.exchange.queue_content(block):
            return (yield from self._flush())
        return False

    def _flush(self) -> Steps[bool]:
        """
        Write what was held back; a refusal in the midst of a content ends it.

        Return whether it is lost: it did not leave whole, and there are replies to be read, but nothing to be written.
        """
        data, alone = self.exchange.take_buffer()
        lost = early = False
        try:
            early = alone and self._has_unread()
            if not early:
                yield from self._write(data)
        except OSError as raised:
            error = self._translate(raised)
            # The server may have said why before it went.
            lost = self._fail(error)
            if not lost:
                raise error from error.__cause__
        if early or self.exchange.is_answered_early:
            raise early_reply_error((yield from self._receive(Receive(Stage.CONTENT))))
        return lost

    def _write(self, data: memoryview) -> Steps[None]:
        exchange = self.exchange
        exchange.release(data)
        while data:
            # A TLS record at a time: of what was not written whole, the server has no part (RFC 8446 §5.1).
            sent = self._write_record(data[:_RECORD])
            data = data[sent:]
            # A server that has said no may read no more: what it said is read before the write can time out. In a
            # group, replies are read while it is written, for a server may write before it reads on (RFC 2920 §3.1).
            while data and self._read_available():
                if exchange.is_content_open:
                    return
                self._keep_early_replies()
                if exchange.has_surplus:
                    exchange.refuse_unsolicited(self._stage)
                self.patience()
                if sent:
                    # One read for each record, as long as there is room: more replies at once would have to be kept.
                    break
            if data and not sent:
                yield READ | WRITE

    def _write_record(self, record: memoryview) -> int:
        """Write *record*, and return how much of it has left: 0 where there is no room."""
        # Counted before, so that an interrupt cannot make it less than what the server has.
        self.exchange.written += len(record)
        try:
            sent = self.channel.write(record)
        except OSError:
            self.exchange.written -= len(record)
            raise
        self.exchange.written -= len(record) - sent
        return sent

    def _receive(self, effect: Receive) -> Steps[RawReply]:
        self._enter_stage(effect.stage, effect.limit)
        exchange = self.exchange
        # What is held back leaves before anything is waited for; before its first reply in any case.
        if exchange.is_holding and not exchange.replies_due:
            self._check()
            yield from self._flush()
        while (raw := exchange.next_reply()) is None:
            try:
                self._check()
                # With nothing to be written, there is nothing to be read before it is waited for, but what TLS has.
                has_come = (exchange.is_holding or self.channel.has_buffered) and self._read_available()
                if not has_come and not exchange.is_holding:
                    yield from self._wait_for_reply()
            except OSError as raised:
                error = self._translate(raised)
                # What has come already is an answer, whatever has ended the wait for it.
                if not self._fail(error):
                    raise error from error.__cause__
            else:
                if not has_come and exchange.is_holding:
                    yield from self._flush()
        self.channel.note_reply()
        return raw

    def _wait_for_reply(self) -> Steps[None]:
        try:
            self._live()
            yield READ
            self._read_available()
        except OSError as raised:
            error = self._translate(raised)
            if self._stage is Stage.GREETING and self.exchange.tls is None and not self.exchange.has_unread:
                hint = 'if this port is for implicit TLS (usually 465), use tls="implicit"'
                if self._settings.port == _PORT_IMPLICIT:
                    message = "the server waits for TLS on this port"
                    raise WrongTLSModeError(message, stage=Stage.GREETING, hint=hint) from error
                error.hint = hint
            raise error from error.__cause__

    # What has come.

    def _read_available(self) -> bool:
        """Read what has come, without waiting; return whether anything has."""
        self._live()
        data = self.channel.read()
        if data is None:
            return False
        self.exchange.feed(data)
        return True

    def _has_unread(self) -> bool:
        """Return whether the server has said something that was not asked for."""
        return self._read_available() or self.exchange.has_unread

    def _keep_early_replies(self) -> None:
        if self.exchange.keep_early_replies():
            self.channel.note_reply()

    def _read_more(self) -> bool:
        """Read once what has come, as long as anything is owed; return whether anything has."""
        if self.exchange.has_surplus or not self._read_available():
            return False
        self._keep_early_replies()
        return True

    def _check_unsolicited(self) -> None:
        """Refuse to go on where the server has said more than it was asked."""
        self._keep_early_replies()
        while self._read_more():
            self.patience()
        self.exchange.check_unsolicited(self._stage)

    # Limits and errors.

    def _begin_step(self, stage: Stage, limit: str) -> None:
        self._enter_stage(stage, limit)
        self._check()

    def _enter_stage(self, stage: Stage, limit: str) -> None:
        self._stage, self._limit, self._deadline = stage, limit, None

    def _check(self) -> None:
        self.channel.refuse_if_aborted()
        if self._deadline is not None:
            self._deadline.left(self._stage)
        elif self.overall is not None:
            self.overall.left(self._stage)

    def _live(self) -> socket.socket:
        """Return the socket, or raise what closed it."""
        if self.channel.sock is None:
            message = f"the connection is closed{self.exchange.close_reason or ''}"
            raise self._failure or ConnectError(message, retryable=True)
        return self.channel.sock

    def _fail(self, error: SecureSMTPError) -> bool:
        """Close, and return whether replies came before: all that is left to do is to read them."""
        # Behind a reply that was malformed, none is known to be one.
        if not isinstance(error, ProtocolError):
            self._read_last_words()
        self.exchange.drop_unread()
        self.exchange.end(error)
        self._failure = self._failure or error
        self.channel.close()
        return self.exchange.has_early_replies and not isinstance(error, ProtocolError)

    def _close_ended(self) -> None:
        """Close the channel of an exchange that has ended."""
        if self.exchange.is_closing and self.is_open:
            # Replies to what was in flight behind 421 may have come with it.
            self._read_last_words()
        self.channel.close()

    def _read_last_words(self) -> None:
        until = time.monotonic() + _LAST_WORDS
        with suppress(OSError):
            self._keep_early_replies()
            while time.monotonic() < until and self._read_more():
                pass

    def _translate(self, error: OSError) -> SecureSMTPError:
        """Return an error of socket or ssl as ours; raise one that is neither's (a signal handler's TimeoutError)."""
        if is_interrupt(error):
            raise error
        if isinstance(error, SecureSMTPError):
            # Who reads replies or records does not know the stage.
            if error.stage is Stage.UNKNOWN:
                error.stage = self._stage
            if isinstance(error, DeadlineExceededError) and self._pipelined:
                error.hint = _PIPELINED
            return error
        message = f"the connection failed: {describe(error)}"
        hint = HINTS.get(type(error)) if self._stage is Stage.CONNECT else None
        ours = ConnectError(message, stage=self._stage, retryable=True, hint=hint)
        ours.__cause__ = error
        return ours
