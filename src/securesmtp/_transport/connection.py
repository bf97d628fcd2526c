"""
A connection runs dialogues: it performs each effect, and decides what an error or an interrupt does to the session.

How it works: `Connection.run` performs a dialogue as steps (see `channel`), so it never waits itself. An error of the
connection is thrown into the dialogue, which knows what became of its message. An interrupt (Ctrl-C, a cancelled task)
closes the connection: the dialogue gets the error of a lost connection, and then the interrupt is raised again.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, TypeVar, assert_never

from securesmtp._interrupts import raise_if_interrupt
from securesmtp._protocol.effects import (
    Adapt,
    Answer,
    Block,
    CommandGroup,
    Computation,
    Connect,
    Dialogue,
    Effect,
    FetchPassword,
    FetchToken,
    Opened,
    ReadBinding,
    Receive,
    Respond,
    Send,
    SetDeadline,
    Upgrade,
)
from securesmtp._protocol.exchange import Exchange
from securesmtp._protocol.failures import interrupt_error, is_session_usable
from securesmtp._protocol.proxy import open_tunnel
from securesmtp._transport.channel import Channel, Steps
from securesmtp._transport.connect_errors import with_proxy
from securesmtp._transport.deadline import Deadline, StepLimit
from securesmtp._transport.hook import connected_stream
from securesmtp._transport.transfer import Transfer
from securesmtp._transport.tunnel import pass_tunnel
from securesmtp._values import Stage, TLSInfo, TLSMode
from securesmtp.errors import DowngradeError, SecureSMTPError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import RawReply
    from securesmtp._settings import Settings
    from securesmtp._transport.addresses import AddressInfo

T = TypeVar("T")
# Seconds for QUIT, whose reply changes nothing.
_QUIT = 5.0


class Opening:
    """Steps yield this to have the driver call `connect` and `greet`, and are resumed with the greeting."""


OPENING = Opening()


class Connection:
    """
    One connection to the configured server.

    Attributes:
        exchange: What was written, and which replies are due.
        channel: The socket.
        limit: How long the current step may take.
        transfer: Writes commands and contents, and reads replies.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext, memory: Memory | None = None) -> None:
        """Start closed; *memory* has the mailer's secrets, which no reply may show."""
        self.exchange, self.channel = Exchange(memory), Channel(settings, context)
        self.limit = StepLimit(settings.timeouts)
        self.transfer = Transfer(self.exchange, self.channel, self.limit)
        self._settings, self._mode = settings, settings.mode
        # Stays False unless a dialogue ends cleanly, so an interrupt anywhere leaves the connection unusable.
        self._ended_cleanly = False
        # Replies that were read and that the dialogue does not have yet.
        self._replies: tuple[RawReply, ...] | None = None

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
            # Nothing is read from a connection of the parent process. It counts as idle, so that the first write fails:
            # over a new connection, this process would send the message that the parent is sending.
            return usable and (self.channel.is_foreign or self.transfer.is_silent())
        except OSError as error:
            raise_if_interrupt(error)
            return False

    def run(self, dialogue: Dialogue[T]) -> Steps[T]:
        """
        Perform *dialogue* and return its value.

        After any error the connection is closed and nothing more is written to it, unless it is a refusal that leaves
        the session usable. Any other exception is a lost connection for *dialogue*, and is raised again.
        """
        self._ended_cleanly = False
        transfer = self.transfer
        try:
            value = yield from self._perform_all(dialogue)
        except BaseException as error:
            if is_session_usable(error):
                self._ended_cleanly = True
            else:
                self.exchange.end(error if isinstance(error, SecureSMTPError) else None)
                transfer.close_ended()
                if not isinstance(error, SecureSMTPError):
                    self._interrupt(dialogue, error)
            raise
        else:
            self._ended_cleanly = not self.exchange.ended
            return value
        finally:
            if self.exchange.ended and self.is_open:
                transfer.close_ended()
            # A traceback has the message in it.
            self._replies = transfer.failure = None
            transfer.was_silent = False

    def _perform_all(self, dialogue: Dialogue[T]) -> Steps[T]:
        try:
            effect = next(dialogue)
            while True:
                try:
                    steps = self._perform(effect)
                    answer = self._replies if steps is None else (yield from steps)
                except Exception as raised:  # noqa: BLE001 -- raised again unless the effect failed
                    effect = dialogue.throw(self._error_of(effect, raised))
                else:
                    self._replies = None
                    effect = dialogue.send(answer)
                if self.exchange.close_reason is not None and self.is_open:
                    self.transfer.close_ended()
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _error_of(self, effect: Effect, raised: Exception) -> Exception:
        """Return the error to throw into the dialogue because *effect* raised *raised*."""
        if isinstance(effect, Computation):
            # The caller's code failed; the connection is as it was.
            return raised
        # Every error of ours is an OSError too (smtplib.SMTPException).
        if not isinstance(raised, OSError):
            raise raised
        error = self.transfer.translate(raised)
        if self._settings.proxy is not None and self.limit.stage is Stage.CONNECT and not self.channel.is_aborted:
            error = with_proxy(error, self._settings.proxy)
        self.transfer.fail(error)
        return error

    def _interrupt(self, dialogue: Dialogue[T], error: BaseException) -> None:
        """Have *dialogue* decide what became of its message, now that *error* has ended the connection."""
        # If the interrupt struck inside the dialogue, it has ended, and these calls do nothing.
        with suppress(StopIteration, SecureSMTPError):
            if self._replies is not None:
                dialogue.send(self._replies)
            while True:
                dialogue.throw(interrupt_error(error, self.limit.stage))

    def connect(self, addresses: Iterable[AddressInfo]) -> Steps[None]:
        """Connect to one of *addresses*, of the server or of its proxy, with TLS at once in implicit mode."""
        yield from self.channel.connect(addresses)
        settings = self._settings
        if settings.proxy is not None:
            yield from pass_tunnel(self.channel, open_tunnel(settings.proxy, settings.host, settings.port))
        yield from self._begin()

    def adopt(self, sock: object) -> Steps[None]:
        """Use *sock*, which the caller's function has connected, with TLS at once in implicit mode."""
        self.channel.adopt(connected_stream(sock))
        yield from self._begin()

    def _begin(self) -> Steps[None]:
        if self._mode is TLSMode.IMPLICIT:
            yield from self._begin_tls()

    def greet(self) -> Steps[RawReply]:
        """Read the greeting."""
        return (yield from self.transfer.wait_for_replies(Receive(Stage.GREETING)))[0]

    def close_gracefully(self, dialogue: Dialogue[None]) -> Steps[None]:
        """Run the last *dialogue* if the session is usable, and close in any case; its errors do not matter."""
        self.limit.deadline = Deadline("command", _QUIT)
        try:
            with suppress(SecureSMTPError):
                if self.is_idle():
                    yield from self.run(dialogue)
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket; nothing more is sent, and what is held back does not count as sent."""
        self.exchange.end()
        self.channel.close()

    def patience(self) -> float:
        """
        Return the seconds that the driver may wait now.

        Raises:
            ConnectError: The connection was aborted.
            DeadlineExceededError: The time is up.
        """
        self.channel.refuse_if_aborted()
        return self.limit.left()

    # Effects.

    def _perform(self, effect: Effect) -> Steps[Answer] | None:
        """Return the steps that lead to the answer to *effect*; None if it is performed, and `_replies` is it."""
        match effect:
            case Receive():
                self._replies = self.transfer.next_replies(effect)
                return self._receive(effect) if self._replies is None else None
            case Block():
                return self.transfer.send_block(effect)
            case CommandGroup():
                self.transfer.queue(effect)
            case SetDeadline():
                self._set_deadline(effect)
            case _:
                return self._perform_in_steps(effect)
        return None

    def _perform_in_steps(self, effect: Send | Connect | Upgrade | ReadBinding | Computation) -> Steps[Answer]:
        answer: Answer = None
        match effect:
            case Send():
                yield from self.transfer.send_command(effect)
            case FetchPassword() | FetchToken() | Adapt() | Respond():
                answer = yield effect
            case Connect():
                answer = yield from self._open()
            case Upgrade():
                answer = yield from self._begin_tls()
            case ReadBinding():
                answer = self.channel.binding()
            case _:  # never
                assert_never(effect)
        return answer

    def _set_deadline(self, effect: SetDeadline) -> None:
        has_limit = effect.deadline is not None or effect.seconds != inf
        self.limit.deadline = Deadline(effect.limit, effect.seconds, effect.deadline) if has_limit else None
        # What ended the connection for the message before is not the error of this one.
        self.transfer.failure = None

    def _receive(self, effect: Receive) -> Steps[tuple[RawReply, ...]]:
        self._replies = yield from self.transfer.wait_for_replies(effect)
        return self._replies

    def _open(self) -> Steps[Opened]:
        self.transfer.begin(Stage.CONNECT, "connect")
        greeting: RawReply = yield OPENING
        return Opened(greeting, self.exchange.tls, self._literal())

    def _literal(self) -> bytes:
        # Our address on the way to a proxy is none that the server sees, and nobody else's business.
        if self._settings.proxy is not None or self._settings.connect is not None:
            return b"[127.0.0.1]"
        address = str(self.transfer.connected_socket().getsockname()[0])
        literal = f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
        return literal.encode("ascii")

    def _begin_tls(self) -> Steps[TLSInfo]:
        """Begin TLS; bytes that came before it are an attack (RFC 3207 §6)."""
        self.transfer.begin(Stage.HANDSHAKE, "handshake")
        if self._mode is TLSMode.STARTTLS and self.transfer.has_unread():
            message = "there is plaintext between the 220 to STARTTLS and the handshake"
            raise DowngradeError(message, stage=Stage.STARTTLS, hint="somebody may be tampering with the connection")
        self.exchange.begin_tls()
        self.exchange.tls = yield from self.channel.begin_tls()
        return self.exchange.tls
