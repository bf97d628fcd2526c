"""
The sync link: one connection, made anew each time and never handed out, that performs what a dialogue yields.

It is a `smtplib.SMTP` whose socket, reader and writer are ours, because measured (REQUIREMENTS.md §2) stock smtplib
takes half a line for a reply, reads without bound, waits by the read instead of by the operation, and drops what was
injected.
Every stock command goes through `putcmd`, which refuses: there is no second way to write.
"""

from __future__ import annotations

import os
import selectors
import smtplib
import socket
import ssl
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TypeVar, assert_never, cast

from securesmtp._protocol.content import BLOCK
from securesmtp._protocol.effects import (
    Answer,
    Block,
    CommandGroup,
    Computation,
    Connect,
    Dialogue,
    IOEffect,
    Opened,
    Receive,
    Send,
    Upgrade,
    compute,
)
from securesmtp._protocol.failures import early_reply_error, interrupt_error, is_session_usable, server_closing_error
from securesmtp._protocol.replies import is_closing
from securesmtp._protocol.wire import RawReply, ReplyReader
from securesmtp._transport.addresses import AddressInfo, AttemptSchedule, in_order_of_attempts
from securesmtp._transport.process import current_process
from securesmtp._transport.tls import handshake_error, verified, wrap
from securesmtp._values import Stage, TLSInfo, TLSMode
from securesmtp.errors import (
    ConnectError,
    DeadlineExceededError,
    DowngradeError,
    ProtocolError,
    SecureSMTPError,
    TLSError,
    WrongTLSModeError,
)
from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    from securesmtp._protocol.redaction import Memory
    from securesmtp._settings import Settings
    from securesmtp._transport.record import RecordLayer

T = TypeVar("T")
_READ = _RECORD = 16384
# What is kept of replies that came while a flight was written, in octets: so much in all, and so much for each.
_MAX_KEPT, _MAX_REPLY = 1 << 18, 256
# Seconds to read what has come already when a connection is given up: a server that floods is not heard to its end.
_LAST_WORDS = 1.0
_PORT_IMPLICIT = 465
# Goodbye is a courtesy: nobody waits long for its answer.
_QUIT = 5.0
# It has no descriptor of its own, which a fork would share.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)
_HINTS: dict[type[OSError], str] = {
    ConnectionRefusedError: "is the port right (implicit TLS: 465, STARTTLS: 587)? does a firewall let it pass?",
    socket.gaierror: "is the host's name right?",
}
_PIPELINED = 'if every message ends like this, the server may not take commands in one go: try pipelining="off"'


class Deadline:
    """A moment by which something must be done, and the name of the limit that says so."""

    def __init__(self, limit: str, seconds: float, overall: Deadline | None = None) -> None:
        """Begin now; *overall*, where it is sooner, takes over."""
        self.limit, self.seconds, self._at = limit, seconds, time.monotonic() + seconds
        if overall is not None and overall._at < self._at:  # noqa: SLF001 -- its own class
            self.limit, self.seconds, self._at = overall.limit, overall.seconds, overall._at  # noqa: SLF001

    def left(self, stage: Stage) -> float:
        """
        Return the seconds that are left.

        Raises:
            DeadlineExceededError: There are none.
        """
        left = self._at - time.monotonic()
        if left > 0:
            return left
        message = f"the limit {self.limit}={self.seconds:g} s ran out in stage {stage}"
        error = DeadlineExceededError(message, stage=stage, retryable=True)
        error.limit = self.limit
        raise error


class Link(smtplib.SMTP):
    """One connection to the configured server."""

    def __init__(self, settings: Settings, context: ssl.SSLContext, memory: Memory | None = None) -> None:
        """Make a link that is not connected yet; *memory* is the mailer's, of its secrets."""
        # A host would make smtplib connect here, and a missing name would make it ask the resolver for ours.
        super().__init__(host="", local_hostname="[127.0.0.1]", source_address=settings.source_address)
        self.overall: Deadline | None = None
        self._settings = settings
        self._context = context
        self._memory = memory
        self._reader = ReplyReader(memory)
        self._greeting: RawReply | None = None
        self._records: RecordLayer | None = None
        self._tls: TLSInfo | None = None
        self._said: set[bytes] = set()
        self._process = current_process()
        self._held = bytearray()
        # The greeting is the first reply that is owed.
        self._awaited, self._due, self._ending = 1, 0, False
        self._heard: deque[RawReply] = deque()
        self._kept = 0
        # Where each command that is owed a reply ends, with its content, among the octets of `position`: what was to be
        # written so far, of which `written` left whole. And whether the first is a content that a 354 has asked for.
        self._ends: deque[int] = deque([0])
        self._asked = False
        # Whether the replies that are owed are to commands of one flight (RFC 2920).
        self._pipelined = False
        self._aborted = False
        # The sockets whose attempts to connect are under way, for `abort`.
        self._connecting: list[socket.socket] = []
        self._why = ""
        # What ended the connection within the dialogue that is being run.
        self._failure: SecureSMTPError | None = None
        self.position = self.written = 0
        self.addresses: tuple[str, ...] = ()
        self.address = ""
        self._in_step = self._is_closing = False
        self._stage = Stage.CONNECT
        # What the dialogue has asked for and was not given yet.
        self._reply: RawReply | None = None
        self._selector: selectors.BaseSelector = _Selector()
        self._watched = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self.sock is not None

    @property
    def is_in_step(self) -> bool:
        """Whether its last dialogue has ended well, and the server has not said that it closes (RFC 5321 §3.8)."""
        return self._in_step and not self._is_closing

    def run(self, dialogue: Dialogue[T]) -> T:
        """
        Perform *dialogue* and return its value.

        After any error the connection is closed and nothing more is written to it; a refusal alone leaves the session
        in step, and open. A foreign exception is the loss of the connection for *dialogue*, and is raised again.
        """
        answer: Answer = None
        # Taken back only where the session is known to be in step: whatever comes between two lines, a second Ctrl-C in
        # the handling of the first too, leaves a connection that is not used again.
        self._in_step = False
        try:
            while True:
                self._reply = None
                effect = dialogue.send(answer)
                while isinstance(effect, Computation):
                    effect = compute(effect, dialogue)
                try:
                    answer = self._perform(effect)
                except OSError as raised:
                    # Every error of ours is an OSError too (smtplib.SMTPException).
                    error = self._mapped(raised)
                    self._give_up(error)
                    dialogue.throw(error)
        except StopIteration as stop:
            self._in_step = True
            return cast("T", stop.value)
        except BaseException as error:
            if is_session_usable(error):
                self._in_step = True
            else:
                if self._is_closing and self.is_open:
                    # Replies to what was in flight behind it may have come with it.
                    self._hear_last_words()
                self.close()
                if isinstance(error, SecureSMTPError):
                    self._why = self._why or f": {error.args[0]}"
                else:
                    self._interrupt(dialogue, error)
            raise
        finally:
            # A traceback has the message in it.
            self._reply = self._failure = None

    def _interrupt(self, dialogue: Dialogue[T], error: BaseException) -> None:
        """Let *dialogue* find out that *error* has ended its connection, and decide what became of its message."""
        # A dialogue that has been struck itself has ended: what it is asked then changes nothing.
        with suppress(StopIteration, SecureSMTPError):
            if self._reply is not None:
                dialogue.send(self._reply)
            while True:
                dialogue.throw(interrupt_error(error, self._stage))

    def is_idle(self) -> bool:
        """Return whether the connection can carry another message: open, and with nothing unread (RPL-04)."""
        try:
            whole = self.is_in_step and not self._awaited and self.written == self.position
            # Where it is the parent's, nothing is read. The first write fails: a connection of this process's own would
            # carry the message that the parent is sending.
            return self.is_open and whole and (self._process != current_process() or not self._unread())
        except OSError as error:
            if is_interrupt(error):
                raise
            return False

    # What smtplib calls.

    def putcmd(self, cmd: str, args: str = "") -> NoReturn:
        """Refuse: `wire.line` alone builds commands, and every stock command would come through here."""
        raise NotImplementedError

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 -- smtplib's signature
        self.sock = self._connect(host, port)
        if self._settings.mode is TLSMode.IMPLICIT:
            self._upgrade()
        return self._open_socket()

    def getreply(self) -> tuple[int, bytes]:
        """Read the greeting for `smtplib.SMTP.connect`; all other replies are read as effects."""
        self._greeting = self._receive(Receive(Stage.GREETING))
        return self._greeting.code, b"\n".join(self._greeting.lines)

    def send(self, s: object) -> None:
        """Write octets: the one gate. In the clear it lets one EHLO and one STARTTLS pass (STLS-01)."""
        # A view, so that no frame of a traceback shows the octets: they may be a password.
        view = memoryview(cast("bytes", s))
        if self._tls is None:
            verb = bytes(view).partition(b" ")[0].strip()
            if verb not in {b"EHLO", b"STARTTLS"} or verb in self._said or bytes(view).count(b"\n") != 1:
                message = "only one EHLO and one STARTTLS are written in the clear"
                raise TLSError(message)
            self._said.add(verb)
        while view:
            # A TLS record at a time: what was not written whole, the server has no part of (RFC 8446 §5.1).
            sent = self._write(view[:_RECORD])
            view = view[sent:]
            # A server that has said no may read no more: what it said is heard before the write can time out. In a
            # flight, replies are read while it is written, for a server may write before it reads on (RFC 2920 §3.1).
            while view and self._take():
                if self._in_content:
                    return
                self._collect()
                if self._surplus:
                    self._unsolicited(self._stage)
                self._check()
                if sent:
                    # One read for each record, as long as there is room: more replies at once would have to be kept.
                    break
            if view and not sent:
                self._wait(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def close(self) -> None:
        """Close the socket, without a word; what is held back is never written, and not counted as if it were."""
        sock, self.sock = self.sock, None
        self._held, self._due = bytearray(), 0
        if sock is not None:
            sock.close()

    def abort(self) -> None:
        """End the connection from another thread: whatever waits on it meets its end, and the owner closes it."""
        self._aborted = True
        for sock in (*self._connecting, self.sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def goodbye(self, dialogue: Dialogue[None]) -> None:
        """Run the last *dialogue* if the session is in step, and close whatever comes of it; nothing is waited for."""
        self.overall = Deadline("command", _QUIT)
        with suppress(SecureSMTPError):
            if self.is_idle():
                self.run(dialogue)
        self.close()

    # Effects.

    def _perform(self, effect: IOEffect) -> Answer:
        match effect:
            case Connect():
                return self._begin()
            case Send():
                self._send(effect)
            case CommandGroup():
                self._fly(effect)
            case Receive():
                self._reply = self._receive(effect)
                return self._reply
            case Upgrade():
                return self._upgrade()
            case Block():
                # Never False: a dialogue may delegate to an iterator, which can be sent nothing but None.
                return self._block(effect) or None
            case _:  # never
                assert_never(effect)
        return None

    def _begin(self) -> Opened:
        self.connect(self._settings.host, self._settings.port)
        address = str(self._open_socket().getsockname()[0])
        literal = f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
        return Opened(cast("RawReply", self._greeting), self._tls, literal.encode("ascii"))

    def _send(self, effect: Send) -> None:
        self._step(effect.stage, "command")
        self._demand_silence(effect.stage)
        self._reader.conceal(effect.line)
        self.position += len(effect.line.data)
        self._awaited, self._ends, self._pipelined = 1, deque([self.position]), False
        self._release(memoryview(effect.line.data))

    def _fly(self, effect: CommandGroup) -> None:
        self._step(effect.stage, "command")
        self._demand_silence(effect.stage)
        self._pipelined = len(effect.lines) + self._awaited + self._due > 1
        self._due += len(effect.lines)
        # Written with the content that follows it, if one does: a second small write would make a server that has
        # Nagle's algorithm keep its answer back until we acknowledge the first (measured: 40 ms to Postfix).
        for line in effect.lines:
            self._hold(line.data)
            self._ends.append(self.position)

    def _block(self, effect: Block) -> bool:
        self._step(Stage.CONTENT, "block")
        # A content that a 354 has asked for leaves when all before it is answered.
        self._pipelined = self._pipelined and self._due > 0
        self._hold(effect.data)
        self._ends[-1] = self.position
        if not effect.coalesce or len(self._held) >= BLOCK:
            return self._flush()
        if not self._due:
            # The end of a content that a 354 has asked for: an answer to it that comes before it is written is none.
            self._awaited, self._due, self._ending = self._awaited - 1, 1, True
        return False

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.position += len(data)

    def _flush(self) -> bool:
        """
        Write what was held back; a refusal in the midst of a content ends it.

        Return whether it is lost: it did not leave whole, and there are replies to be heard, but nothing to be written.
        """
        # A view, as in `send`: it may be a message.
        held, self._held = memoryview(self._held), bytearray()
        self._awaited, self._due = self._awaited + self._due, 0
        # The replies to the commands of a flight may come at any time; the one to the content may not.
        early, self._asked, self._ending = self._ending or self._awaited <= 1, self._ending, False
        lost = False
        try:
            early = early and self._unread()
            if not early:
                self._release(held)
        except OSError as raised:
            error = self._mapped(raised)
            # The server may have said why before it went.
            lost = self._give_up(error)
            if not lost:
                raise error from error.__cause__
        if early or (self._in_content and (self._heard or self._reader.pending)):
            raise early_reply_error(self._receive(Receive(Stage.CONTENT)))
        return lost

    def _release(self, data: memoryview) -> None:
        # A server that has answered before all of it left takes what would follow for something else.
        if self.written + len(data) != self.position:
            message = "the server answered before what it was sent was complete"
            raise ConnectError(message, stage=self._stage, retryable=True)
        self.send(data)

    def _write(self, record: memoryview) -> int:
        """Write one record, and return how much of it left: nothing where there is no room."""
        wire = self._open_wire()
        # Before, so that an interrupt cannot make it less than what the server has.
        self.written += len(record)
        try:
            sent = wire.send(record)
        except OSError as error:
            self.written -= len(record)
            if isinstance(error, BlockingIOError):
                return 0
            raise
        self.written -= len(record) - sent
        return sent

    def _receive(self, effect: Receive) -> RawReply:
        self._enter(effect.stage, effect.limit)
        # What is held back leaves before anything is waited for; before its first reply in any case.
        if self._held and not self._awaited:
            self._check()
            self._flush()
        while (raw := self._next_kept() if self._heard else self._timely(0)) is None:
            try:
                self._check()
                # With nothing to be written, there is nothing to be read before it is waited for, but what TLS has.
                come = (self._held or (self._records and self._records.pending())) and self._take()
                if not come and not self._held:
                    self._wait_for_reply()
            except OSError as raised:
                error = self._mapped(raised)
                # What has come already is an answer, whatever has ended the wait for it.
                if not self._give_up(error):
                    raise error from error.__cause__
            else:
                if not come and self._held:
                    self._flush()
        # RFC 5321 §4.3.2: 354 is half an answer, the other half comes when the content was ended.
        if raw.code != 354:  # noqa: PLR2004
            self._awaited -= 1
            self._ends.popleft()
        self._is_closing = self._is_closing or is_closing(raw.code)
        return raw

    def _upgrade(self) -> TLSInfo:
        """Begin TLS, here and nowhere else; octets that came before it are an attack (RFC 3207 §6)."""
        plain = self._open_socket()
        self._step(Stage.HANDSHAKE, "handshake")
        if self._settings.mode is TLSMode.STARTTLS and self._unread():
            message = "there is plaintext between the 220 to STARTTLS and the handshake"
            raise DowngradeError(message, stage=Stage.STARTTLS, hint="somebody may be tampering with the connection")
        self._reader = ReplyReader(self._memory)
        self._records = wrap(self._context, plain, self._settings.server_name)
        self._handshake(self._records)
        self._tls = verified(self._records.tls, self._settings)
        return self._tls

    # Octets and time.

    def _connect(self, host: str, port: int) -> socket.socket:
        """Return a socket connected to the first address of *host* that answers (RFC 8305)."""
        self._step(Stage.CONNECT, "connect")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
        answers: dict[AddressInfo, OSError | None] = {}
        try:
            return self._race(in_order_of_attempts(found), answers)
        except DeadlineExceededError as error:
            if len(answers) > 1:
                error.args = (f"{error.args[0]} ({_answers(answers)})",)
            raise
        finally:
            # All but the winner, whatever ends the race.
            while self._connecting:
                if (sock := self._connecting.pop()) is not self.sock:
                    sock.close()

    def _race(self, addresses: list[AddressInfo], answers: dict[AddressInfo, OSError | None]) -> socket.socket:
        schedule = AttemptSchedule(addresses)

        def failed(address: AddressInfo, error: OSError) -> None:
            # Its traceback would keep this frame, and all that called it.
            answers[address] = error.with_traceback(None)
            schedule.failed(address)

        with _Selector() as selector:
            while True:
                while (address := schedule.next_attempt(time.monotonic())) is not None:
                    answers[address] = None
                    try:
                        selector.register(self._begin_connect(address), selectors.EVENT_WRITE, address)
                    except OSError as error:
                        failed(address, error)
                # Behind the start of an attempt: `abort` may have come before there was a connection to end.
                self._refuse_if_aborted(Stage.CONNECT)
                left = self._deadline.left(Stage.CONNECT)
                if not selector.get_map():
                    raise _unreachable(answers)
                delay = schedule.delay(time.monotonic())
                for key, _ in selector.select(left if delay is None else min(left, delay)):
                    sock, address = cast("socket.socket", key.fileobj), cast("AddressInfo", key.data)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        self.sock, self.address = sock, str(address[4][0])
                        return sock
                    selector.unregister(sock)
                    sock.close()
                    failed(address, OSError(code, os.strerror(code)))

    def _begin_connect(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        sock = socket.socket(family, kind, protocol)
        self._connecting.append(sock)
        sock.settimeout(0)
        source = self._settings.source_address
        if source is not None:
            # Two attempts may be under way from the one port that the caller chose.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, source[1] != 0)
            sock.bind(source)
        # A flight and its content are two writes: the second must not wait for the first's acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Writable as soon as a block fits, not when a third of a large buffer is free: the limit is per block.
        with suppress(OSError, AttributeError):  # not every system has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BLOCK)
        with suppress(BlockingIOError):  # under way
            sock.connect(address)
        return sock

    def _handshake(self, records: RecordLayer) -> None:
        while True:
            self._refuse_if_forked()
            try:
                return records.do_handshake()
            except BlockingIOError:
                self._wait(selectors.EVENT_WRITE)
            except ssl.SSLWantReadError:
                self._wait(selectors.EVENT_READ)
            except ssl.SSLEOFError:
                raise
            except ssl.SSLError as error:
                raise handshake_error(error, records.tls, self._settings) from error

    def _take(self) -> bool:
        """Read what has come, without waiting; return whether anything has."""
        try:
            octets = self._open_wire().recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        if not octets:
            self._refuse_if_aborted(self._stage)
            message = "the server closed the connection"
            raise ConnectError(message, stage=self._stage, retryable=True)
        self._reader.feed(octets)
        return True

    def _timely(self, number: int) -> RawReply | None:
        """Return the next reply, to the command of that *number* among those that are owed one."""
        raw = self._reader.next()
        if raw is None:
            return None
        if self._records is not None:
            self._records.renew()
        # A refusal may come before a chunk was read; who accepts what was not written answers something else.
        if raw.code < 400 and self._ends[number] > self.written:  # noqa: PLR2004
            message = f'"{raw.reply()}" came before what it answers was written'
            raise ProtocolError(message, stage=self._stage)
        return raw

    @property
    def _in_content(self) -> bool:
        """Whether the next reply is to a content that is not written to its end: then the rest must not be written."""
        return self._awaited <= 1 or (self._asked and self._ends[0] > self.written)

    @property
    def _surplus(self) -> bool:
        """Whether the server has said more than it owes."""
        return self._reader.pending and len(self._heard) >= self._awaited

    def _next_kept(self) -> RawReply:
        raw = self._heard.popleft()
        self._kept -= _weight(raw)
        return raw

    def _collect(self) -> None:
        """Keep what has come of a flight's replies, as little of each as anybody is told: a server may say much."""
        while len(self._heard) < self._awaited and (raw := self._timely(len(self._heard))) is not None:
            self._heard.append(raw.cut())
            self._kept += _weight(self._heard[-1])
            if self._kept > _MAX_KEPT + len(self._heard) * _MAX_REPLY:
                message = "the replies to what is in flight are longer than any server needs"
                raise ProtocolError(message, stage=self._stage)

    def _hear_more(self) -> bool:
        """Read once what has come, as long as anything is owed, and return whether anything has."""
        if self._surplus or not self._take():
            return False
        self._collect()
        return True

    def _unread(self) -> bool:
        """Return whether the server has said something that was not asked for."""
        return self._take() or self._reader.pending

    def _wait_for_reply(self) -> None:
        try:
            self._wait(selectors.EVENT_READ)
            self._take()
        except OSError as raised:
            error = self._mapped(raised)
            if self._stage is Stage.GREETING and self._tls is None and not self._reader.pending:
                hint = 'if this port is for implicit TLS (usually 465), use tls="implicit"'
                if self._settings.port == _PORT_IMPLICIT:
                    message = "the server waits for TLS on this port"
                    raise WrongTLSModeError(message, stage=Stage.GREETING, hint=hint) from error
                error.hint = hint
            raise error from error.__cause__

    def _wait(self, events: int) -> None:
        sock = self._open_socket()
        # A server's small writes wait for our acknowledgements (measured: 43 of 46 ms of a login to Postfix).
        with suppress(OSError, AttributeError):  # not every system has it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if events != self._watched:
            (self._selector.modify if self._watched else self._selector.register)(sock.fileno(), events)
            self._watched = events
        self._selector.select(self._deadline.left(self._stage))
        self._deadline.left(self._stage)

    def _give_up(self, error: SecureSMTPError) -> bool:
        """Close, and return whether there are answers that came before: all that is left to do is to hear them."""
        # Behind a reply that was malformed, none is known to be one.
        if not isinstance(error, ProtocolError):
            self._hear_last_words()
        self._reader = ReplyReader()
        self._why = self._why or f": {error.args[0]}"
        self._failure = self._failure or error
        self.close()
        return bool(self._heard) and not isinstance(error, ProtocolError)

    def _hear_last_words(self) -> None:
        until = time.monotonic() + _LAST_WORDS
        with suppress(OSError):
            self._collect()
            while time.monotonic() < until and self._hear_more():
                pass

    def _refuse_if_aborted(self, stage: Stage) -> None:
        if self._aborted:
            message = "the connection was ended by close(abort=True)"
            raise ConnectError(message, stage=stage, retryable=True)

    def _step(self, stage: Stage, limit: str) -> None:
        self._enter(stage, limit)
        self._check()

    def _enter(self, stage: Stage, limit: str) -> None:
        self._stage = stage
        self._deadline = Deadline(limit, getattr(self._settings.timeouts, limit), self.overall)

    def _check(self) -> None:
        self._refuse_if_aborted(self._stage)
        self._deadline.left(self._stage)

    def _open_socket(self) -> socket.socket:
        if self.sock is None:
            message = f"the connection is closed{self._why}"
            raise self._failure or ConnectError(message, retryable=True)
        return self.sock

    def _open_wire(self) -> socket.socket | RecordLayer:
        """Return what is written to and read from: nothing but TLS, from the moment that it began."""
        sock = self._open_socket()
        self._refuse_if_forked()
        return self._records or sock

    def _refuse_if_forked(self) -> None:
        # After a fork the connection is the parent's: two writers would use one TLS nonce twice (seen on the wire), and
        # what a second reader takes, the parent waits for in vain (seen: accepted, and unknown to the parent).
        if self._process != current_process():
            message = "the connection belongs to the process that this one was forked from"
            raise ConnectError(message, stage=self._stage, retryable=True)

    def _demand_silence(self, stage: Stage) -> None:
        """End the session where the server has said more than it was asked."""
        self._collect()
        while self._hear_more():
            self._check()
        if self._surplus and not self._ending:
            self._unsolicited(stage)

    def _unsolicited(self, stage: Stage) -> NoReturn:
        raw = self._reader.next()
        if self._tls is None:
            message = "the server spoke out of turn, in the clear"
            raise DowngradeError(message, stage=stage)
        if raw is not None and is_closing(raw.code):  # RFC 5321 §3.8
            raise server_closing_error(raw.reply(), stage)
        message = "the server spoke out of turn"
        raise ProtocolError(message, stage=stage)

    def _mapped(self, error: OSError) -> SecureSMTPError:
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
        message = f"the connection failed: {_words(error)}"
        hint = _HINTS.get(type(error)) if self._stage is Stage.CONNECT else None
        ours = ConnectError(message, stage=self._stage, retryable=True, hint=hint)
        ours.__cause__ = error
        return ours


def _unreachable(answers: dict[AddressInfo, OSError | None]) -> ConnectError:
    """Return the error for a host none of whose addresses could be connected to."""
    errors = [error for error in answers.values() if error is not None]
    what = _answers(answers) if len(answers) > 1 else ", ".join(map(_words, errors)) or "the name has no address"
    hint = _HINTS[ConnectionRefusedError] if ConnectionRefusedError in map(type, errors) else None
    ours = ConnectError(f"the connection failed: {what}", stage=Stage.CONNECT, retryable=True, hint=hint)
    ours.__cause__ = errors[-1] if errors else None
    return ours


def _answers(answers: dict[AddressInfo, OSError | None]) -> str:
    told = {info: "no answer" if error is None else _words(error) for info, error in answers.items()}
    return "; ".join(f"{address[0]}: {words}" for (*_, address), words in told.items())


def _words(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _weight(raw: RawReply) -> int:
    # A bytes object has 33 octets of its own, and a place in the tuple.
    return len(raw.challenge) + sum(len(line) + 41 for line in raw.lines)
