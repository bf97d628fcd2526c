r"""
Run an SMTP server from a script, on a real loopback socket with real TLS, and log what the client wrote.

A script is a function that takes a `Peer`; the server calls it once for each connection:

    def injects(peer: Peer) -> None:
        peer.send(b"220 mx.test ESMTP\r\n")
        peer.expect(b"EHLO")
        peer.send(b"250-mx.test\r\n250 STARTTLS\r\n")
        peer.expect(b"STARTTLS")
        peer.send(b"220 go\r\n250-INJECTED\r\n")
        peer.start_tls()

    with ScriptedServer(injects, tls=server_context) as server:
        ...                                     # the client talks to server.port
    assert server.plain == b"EHLO ...\r\nSTARTTLS\r\n" and server.secret == b""

A client that leaves ends its script; `Connection.client` says how. These are failures, raised in the test by `check()`
and at the end of the `with` block: an expectation that fails while the client is connected, a client that does nothing
for `timeout` seconds, and an exception in the script itself.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Literal, NoReturn, Self, TypeVar

Chunking = Literal["whole", "by_line", "by_byte"]
Ending = Literal["close", "cut", "reset"]
Mode = Literal["implicit", "starttls"]
# The return value is ignored, so that a lambda will do.
Script = Callable[["Peer"], object]
# An honest server's reply to a verb: fixed bytes, or a function of the peer and the line (or content).
Answer = bytes | Callable[["Peer", bytes], bytes]

_T = TypeVar("_T")

_CHUNK = 65536
# The first octet of a TLS handshake record; no SMTP command begins with it.
_HANDSHAKE_RECORD = 0x16
# Seconds that the end of the `with` block waits for clients to leave, before it cuts them off.
_GRACE = 1.0


class Unexpected(AssertionError):  # noqa: N818 - reads better where it is caught
    """The client did something other than the script expects."""


class Gone(Exception):  # noqa: N818 - an outcome, not an error
    """The client ended the connection, or sent TLS where the script expects plaintext, or the reverse."""


class _Cut(Exception):  # noqa: N818 - an outcome, not an error
    """The server ended the connection at the configured octet."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One message that the server accepted; `content` is without dot-stuffing, `wire` is as the client wrote it."""

    mail_from: bytes
    recipients: tuple[bytes, ...]
    content: bytes
    wire: bytes


@dataclass(slots=True)
class Turn:
    """What one side wrote before the other wrote again."""

    who: Literal["client", "server"]
    octets: bytearray = field(default_factory=bytearray)
    encrypted: bool = False


@dataclass(slots=True)
class Connection:
    """The log of one connection: each octet received is in exactly one of `plain`, `raw` and `secret`."""

    plain: bytearray = field(default_factory=bytearray)
    """Octets received before TLS."""
    raw: bytearray = field(default_factory=bytearray)
    """TLS records (a ClientHello and what follows) that came while the script expected plaintext."""
    secret: bytearray = field(default_factory=bytearray)
    """Octets received inside TLS, decrypted."""
    late: bytearray = field(default_factory=bytearray)
    """The octets of the above that were read after the server had closed its side."""
    written: int = 0
    """Number of octets that the server wrote, before and inside TLS, not counting those of TLS itself."""
    turns: list[Turn] = field(default_factory=list)
    """What both sides wrote, in the order in which the server saw it, without unexpected TLS records."""
    accepted: list[Accepted] = field(default_factory=list)
    encrypted: bool = False
    client: str = "open"
    """How the client ended: open, eof, close_notify, reset, client_hello, plaintext, or "tls: " and the reason."""
    finished: bool = False
    """True if the script ran to its end."""
    failure: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def read(self) -> int:
        """Number of octets that the server read, before and inside TLS, not counting those of TLS itself."""
        return len(self.plain) + len(self.raw) + len(self.secret)

    def said(self, who: Literal["client", "server"], data: bytes) -> None:
        """Append octets to the turns of the session."""
        if not self.turns or (self.turns[-1].who, self.turns[-1].encrypted) != (who, self.encrypted):
            self.turns.append(Turn(who, encrypted=self.encrypted))
        self.turns[-1].octets += data

    def note(self, data: bytes, *, late: bool) -> None:
        """Log octets that came in."""
        self.said("client", data)
        if self.encrypted:
            self.secret += data
        elif self.raw or (data[0] == _HANDSHAKE_RECORD and (not self.plain or self.plain.endswith(b"\n"))):
            self.raw += data
        else:
            self.plain += data
        if late:
            self.late += data


class Peer:
    """
    The script's end of one connection; every operation has the server's timeout.

    TLS is done in memory, because `SSLSocket.unwrap`, which sends close_notify, also reads, and discards what the
    client has written meanwhile: that would be missing in the log.
    """

    def __init__(self, sock: socket.socket, log: Connection, server: ScriptedServer) -> None:
        self.sock = sock
        self.tls: ssl.SSLObject | None = None
        self.log = log
        self._server = server
        self._buffer = bytearray()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ended = False

    @property
    def raw(self) -> bytes:
        """The TLS records that came while the script expected plaintext."""
        return bytes(self.log.raw)

    # Writing

    def send(self, data: bytes) -> None:
        """Write these octets, in pieces according to the server's `chunking`."""
        limit = self._server.cut_after_written
        cut = limit is not None and self.log.written + len(data) >= limit
        if cut and limit is not None:
            data = data[: limit - self.log.written]
        for piece in _pieces(data, self._server.chunking):
            self._write(piece)
        if cut:
            self._cut_here()

    def drip(self, data: bytes, interval: float) -> None:
        """Write one octet every `interval` seconds."""
        for octet in data:
            self.send(bytes((octet,)))
            if self._server.stopping.wait(interval):
                raise Gone

    def _write(self, data: bytes) -> None:
        # Logged before it is written, because the client may react, and the test check the log, at once.
        self.log.said("server", data)
        self.log.written += len(data)
        with self._faults():
            self.sock.settimeout(self._server.timeout)
            if self.tls is None:
                self.sock.sendall(data)
            else:
                self.tls.write(data)
                self.sock.sendall(self._outgoing.read())

    # Reading

    def expect(self, prefix: bytes) -> bytes:
        """Read one line, which must begin with `prefix` in upper or lower case, and return it."""
        line = self.read_line()
        if not line.upper().startswith(prefix.upper()):
            message = f"expected a line that begins with {prefix!r}, got {line!r}"
            raise Unexpected(message)
        return line

    def read_line(self) -> bytes:
        """Read up to the next CRLF and return the line without it."""
        return self._take(self._find(b"\r\n"))[:-2]

    def read_data(self) -> bytes:
        """Read message content and return it as it was written: dot-stuffed, with the final `.` CRLF."""
        while len(self._buffer) < len(b".\r\n"):
            self._receive_more()
        # Before the final dot of an empty content, the CRLF of the DATA line counts.
        if self._buffer.startswith(b".\r\n"):
            return self._take(len(b".\r\n"))
        return self._take(self._find(b"\r\n.\r\n"))

    def read_exactly(self, count: int) -> bytes:
        """Read this many octets."""
        while len(self._buffer) < count:
            self._receive_more()
        return self._take(count)

    def read_some(self) -> bytes:
        """Read what has arrived, at least one octet; use it to look at a ClientHello."""
        if not self._buffer:
            self._receive()
        return self._take(len(self._buffer))

    def expect_silence(self, seconds: float) -> None:
        """Wait that long, and fail if the client writes anything meanwhile."""
        if not self._buffer:
            try:
                self._receive(seconds)
            except Unexpected:
                return
        message = f"expected silence, got {bytes(self._buffer)!r}"
        raise Unexpected(message)

    def sleep_until_peer_closes(self, timeout: float | None = None) -> None:
        """Read and log until the client ends the connection, and fail if it does not in time."""
        deadline = time.monotonic() + (self._server.timeout if timeout is None else timeout)
        with contextlib.suppress(Gone):
            while True:
                # Zero would mean non-blocking.
                self._receive(max(deadline - time.monotonic(), 0.001), limited=False)

    def _find(self, mark: bytes) -> int:
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark) + 1)
            self._receive_more()
        return at + len(mark)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self, timeout: float | None = None, *, limited: bool = True) -> None:
        limit = self._server.cut_after_read if limited else None
        room = _CHUNK if limit is None else min(_CHUNK, limit - self.log.read)
        if room <= 0:
            self._cut_here()
        with self._faults():
            self.sock.settimeout(self._server.timeout if timeout is None else timeout)
            data = self.sock.recv(room) if self.tls is None else self._step(partial(self.tls.read, room))
        if not data:
            self._gone("eof" if self.tls is None else "close_notify")
        self.log.note(data, late=self._ended)
        # Before the script can reply to what was just read.
        if limit is not None and self.log.read >= limit:
            self._cut_here()
        self._buffer += data

    def _receive_more(self) -> None:
        self._receive()
        # A ClientHello has no line end: waiting for one would only time out. `read_some` reads a ClientHello.
        if self.log.raw:
            self._gone("client_hello")

    # TLS and closing

    def start_tls(self) -> None:
        """Do the server's side of the handshake."""
        context = self._server.tls
        if context is None:
            message = "this server has no TLS context"
            raise ValueError(message)
        if self._buffer:
            message = f"octets came in plaintext before the handshake: {bytes(self._buffer)!r}"
            raise Unexpected(message)
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        with self._faults():
            self.sock.settimeout(self._server.timeout)
            first = self.sock.recv(_CHUNK)
            if first and first[0] != _HANDSHAKE_RECORD:
                self.log.note(first, late=self._ended)
                self._gone("plaintext")
            self._feed(first)
            self._step(tls.do_handshake)
        self.tls = tls
        self.log.encrypted = True

    def _step(self, step: Callable[[], _T]) -> _T:
        """Perform one TLS operation; feed it as many octets as it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                # Also sends the tickets after a handshake and the alert after a failure.
                self._flush()
            self._feed(self.sock.recv(_CHUNK))

    def _flush(self) -> None:
        # Even an empty send would consume the error of a reset, which the next read must report.
        if self._outgoing.pending:
            # If the client has left, the next read notices, and still gets what it wrote.
            with contextlib.suppress(OSError):
                self.sock.sendall(self._outgoing.read())

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def close(self) -> None:
        """Close like a good server: close_notify inside TLS, then FIN."""
        if self.tls is not None:
            # Sends our close_notify; the client's is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
            self._flush()
        self.cut()

    def cut(self) -> None:
        """Close by FIN alone, like an attacker who cuts the connection; what still arrives is logged."""
        self._ended = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close by RST."""
        self._ended = True
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _cut_here(self) -> NoReturn:
        {"close": self.close, "cut": self.cut, "reset": self.reset}[self._server.cut_with]()
        raise _Cut

    def _gone(self, how: str) -> NoReturn:
        self.log.client = how
        raise Gone(how)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            # Shows where the test hangs, or the library in it.
            mine = threading.get_ident()
            stacks = [
                "".join(traceback.format_stack(frame)[-12:])
                for ident, frame in sys._current_frames().items()
                if ident != mine
            ]
            message = f"the client did nothing that the script could go on with; it wrote {self.log.read} octets"
            raise Unexpected(f"{message}; the other threads:\n" + "\n".join(stacks)) from None
        except ssl.SSLZeroReturnError:
            # Python raises this only when the server has closed its side, too.
            self._gone("close_notify")
        except ssl.SSLError as error:
            # Python 3.11.2 raises the base class (measured).
            is_eof = isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"
            self._gone("eof" if is_eof else f"tls: {error.reason}")
        except OSError:
            self._gone("reset")

    def play(self, script: Script) -> None:
        """Run the script on this connection, record how it ended, and read what still arrives."""
        # Nothing of the library runs in this thread, and coverage would halve its speed.
        sys.settrace(None)
        try:
            script(self)
            self.log.finished = True
        except (Gone, _Cut):
            pass
        except Exception as error:  # noqa: BLE001 - raised again in the test's thread, by check()
            if not self._server.stopping.is_set():
                self.log.failure = error
            self.reset()
        finally:
            if not self._ended:
                self.close()
            if self.log.client == "open" and self.sock.fileno() >= 0:
                self._linger()
            self.sock.close()
            self.log.done.set()

    def _linger(self) -> None:
        # Closing with unread octets would send RST instead of FIN, and leave them out of the log.
        with contextlib.suppress(Unexpected):
            self.sleep_until_peer_closes()


class ScriptedServer:
    """Listen on an ephemeral loopback port and play a script on each connection, each in its own thread."""

    def __init__(  # noqa: PLR0913 - keyword-only, all with defaults
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        chunking: Chunking = "whole",
        timeout: float = 30.0,
        connections: int = 16,
        cut_after_read: int | None = None,
        cut_after_written: int | None = None,
        cut_with: Ending = "cut",
        host: str = "127.0.0.1",
        overlaps: bool = False,
    ) -> None:
        """
        Listen, and accept at once.

        Args:
            scripts: The scripts of the first, second ... connection; the last one is for all that follow.
            tls: The server's TLS context.
            chunking: The pieces in which each `send` is written.
            timeout: Seconds for each operation on a socket.
            connections: The port is closed after this number of connections.
            cut_after_read: End each connection after this number of octets was read, before replying to them.
            cut_after_written: End each connection after this number of octets was written.
            cut_with: How to end it: close (close_notify, FIN), cut (FIN) or reset (RST).
            host: The address to listen at.
            overlaps: For the audit: True if clients may send the next message before the reply to the last.
        """
        if tls is not None:
            # Debian's Python sets this option, and then a cut looks like close_notify.
            tls.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self.tls, self.chunking, self.timeout, self.host = tls, chunking, timeout, host
        self.cut_after_read, self.cut_after_written, self.cut_with = cut_after_read, cut_after_written, cut_with
        self.overlaps = overlaps
        self.stopping = threading.Event()
        self.connections: list[Connection] = []
        self._scripts = scripts
        self._limit = connections
        self._peers: list[Peer] = []
        self._knocks: set[int] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"scripted-{self.port}", daemon=True)
        self._acceptor.start()

    @property
    def plain(self) -> bytes:
        """What all connections received before TLS."""
        return b"".join(log.plain for log in self.connections)

    @property
    def raw(self) -> bytes:
        """The TLS records that all connections received while their scripts expected plaintext."""
        return b"".join(log.raw for log in self.connections)

    @property
    def secret(self) -> bytes:
        """What all connections received inside TLS."""
        return b"".join(log.secret for log in self.connections)

    @property
    def accepted(self) -> list[Accepted]:
        """All accepted messages: the truth with which a client's outcomes are compared."""
        return [message for log in self.connections for message in log.accepted]

    def joined(self, timeout: float | None = None) -> None:
        """Wait until all connected clients have left and their scripts have ended; fail if it takes too long."""
        self._knock()
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        for number, log in enumerate(tuple(self.connections)):
            if not log.done.wait(max(0.0, deadline - time.monotonic())):
                message = f"connection {number} is still open; received: {bytes(log.plain)!r} {bytes(log.secret)!r}"
                raise Unexpected(message)

    def check(self) -> None:
        """Raise the first failure of a script."""
        for log in self.connections:
            if log.failure is not None:
                raise log.failure

    def stop(self) -> None:
        """Close the port, and cut off the clients that are still connected."""
        self.stopping.set()
        self._knock()
        self._acceptor.join(self.timeout)
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for log in self.connections:
            log.done.wait(self.timeout)

    def __enter__(self) -> Self:
        """Return the server, which is already listening."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; raise a script's failure, or add it to the test's own."""
        if error is None:
            with contextlib.suppress(Unexpected):
                self.joined(_GRACE)
        self.stop()
        if error is None:
            self.check()
        for log in self.connections:
            if error is not None and log.failure is not None:
                error.add_note(f"the server's script had failed: {log.failure!r}")

    def _accept(self) -> None:
        with self._listener:
            while len(self.connections) < self._limit:
                sock, address = self._listener.accept()
                if address[1] in self._knocks:
                    sock.close()
                    if self.stopping.is_set():
                        return
                    continue
                # Each piece of a reply must be sent at once, not when the one before is acknowledged.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                log = Connection()
                peer = Peer(sock, log, self)
                script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
                self._peers.append(peer)
                self.connections.append(log)
                threading.Thread(target=peer.play, args=(script,), daemon=True).start()

    def _knock(self) -> None:
        # Connections are accepted in order of arrival: when ours has been, all earlier ones are in the log.
        # Once the listener has closed, the port may belong to another server or to the knock itself (seen: 30 s lost).
        if not self._acceptor.is_alive():
            return
        with contextlib.suppress(OSError), socket.socket(self._listener.family) as knock:
            knock.bind((self.host, 0))
            self._knocks.add(knock.getsockname()[1])
            knock.settimeout(self.timeout)
            knock.connect((self.host, self.port))
            knock.recv(1)


def up_to_content(peer: Peer) -> None:
    """Play a good server with implicit TLS up to its 354; no content is read."""
    peer.start_tls()
    peer.send(b"220 mx.test\r\n")
    for reply in (b"250 mx.test\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
        peer.read_line()
        peer.send(reply)


def honest(
    mode: Mode = "implicit",
    *,
    extensions: Sequence[str] = ("PIPELINING", "8BITMIME"),
    auth: tuple[str, str] | None = None,
    replies: Mapping[str, Answer] | None = None,
) -> Script:
    """
    Return the script of a correct server for any number of transactions, which logs what it accepts.

    Args:
        mode: When TLS begins.
        extensions: The EHLO reply, besides STARTTLS before TLS, and AUTH PLAIN LOGIN if `auth` is given.
        auth: The right username and password; without them, a login is neither offered nor needed.
        replies: Replies to send instead, by verb, or GREETING, or CONTENT for the final reply to a message. The server
            acts accordingly: a recipient that gets a 5xx reply is not in the transaction.
    """

    def script(peer: Peer) -> None:
        _Honest(peer, mode, extensions, auth, replies or {}).run()

    return script


class _Honest:
    """One session of an honest server; the replies it sends decide what it does next."""

    def __init__(
        self,
        peer: Peer,
        mode: Mode,
        extensions: Sequence[str],
        auth: tuple[str, str] | None,
        replies: Mapping[str, Answer],
    ) -> None:
        self.peer, self.mode, self.extensions, self.auth, self.replies = peer, mode, extensions, auth, replies
        self.authenticated = auth is None
        self.forget()

    def forget(self) -> None:
        self.mail_from: bytes | None = None
        self.recipients: list[bytes] = []
        self.chunks: list[bytes] = []

    def run(self) -> None:
        if self.mode == "implicit":
            self.peer.start_tls()
        if not self.say("GREETING", b"220 mx.test ESMTP\r\n", b"").startswith(b"220"):
            return
        reply = b""
        # 221 and 421 are the server's last words.
        while not reply.startswith((b"221", b"421")):
            reply = self.answer(self.peer.read_line())

    def decide(self, verb: str, default: bytes, line: bytes) -> bytes:
        instead = self.replies.get(verb, default)
        return instead(self.peer, line) if callable(instead) else instead

    def say(self, verb: str, default: bytes, line: bytes) -> bytes:
        reply = self.decide(verb, default, line)
        self.peer.send(reply)
        return reply

    def answer(self, line: bytes) -> bytes:
        verb = line.split(b" ")[0].upper().decode("latin-1")
        match verb:
            case "EHLO":
                return self.say(verb, self.offer(), line)
            case "STARTTLS" if self.mode == "starttls" and not self.peer.log.encrypted:
                return self.starttls(line)
            case "AUTH" if self.auth is not None and self.peer.log.encrypted:
                return self.login(line)
            case "BDAT" if "CHUNKING" not in self.extensions:
                return self.say(verb, b"500 5.5.1 unknown command\r\n", line)
            case "MAIL" | "RCPT" | "DATA" | "BDAT":
                return self.transact(verb, line)
            case "RSET":
                self.forget()
                return self.say(verb, b"250 2.0.0 forgotten\r\n", line)
            case "NOOP":
                return self.say(verb, b"250 2.0.0 ok\r\n", line)
            case "QUIT":
                return self.say(verb, b"221 2.0.0 bye\r\n", line)
        return self.say(verb, b"500 5.5.1 unknown command\r\n", line)

    def offer(self) -> bytes:
        offered = ["mx.test", *self.extensions]
        if self.auth is not None and self.peer.log.encrypted:
            offered.append("AUTH PLAIN LOGIN")
        if self.mode == "starttls" and not self.peer.log.encrypted:
            offered.append("STARTTLS")
        self.forget()
        return b"".join(b"250-%s\r\n" % name.encode() for name in offered[:-1]) + b"250 %s\r\n" % offered[-1].encode()

    def starttls(self, line: bytes) -> bytes:
        reply = self.say("STARTTLS", b"220 2.0.0 go\r\n", line)
        if reply.startswith(b"220"):
            self.peer.start_tls()
            # RFC 3207 §4.2: forget what came in plaintext.
            self.forget()
        return reply

    def login(self, line: bytes) -> bytes:
        _, mechanism, *initial = line.split(b" ")
        if mechanism.upper() not in {b"PLAIN", b"LOGIN"}:
            # `replies` may have another mechanism's exchange.
            reply = self.say("AUTH", b"504 5.5.4 unknown mechanism\r\n", line)
            self.authenticated = reply.startswith(b"235")
            return reply
        try:
            if mechanism.upper() == b"PLAIN":
                shown = self.challenge(b"", initial).split(b"\0")[1:]
            else:
                shown = [self.challenge(b"Username:", initial), self.challenge(b"Password:", [])]
        except binascii.Error:
            return self.say("AUTH", b"501 5.5.2 not base64, or cancelled\r\n", line)
        right = self.auth is not None and shown == [part.encode() for part in self.auth]
        reply = self.say("AUTH", b"235 2.7.0 welcome\r\n" if right else b"535 5.7.8 wrong\r\n", line)
        self.authenticated = reply.startswith(b"235")
        return reply

    def challenge(self, text: bytes, initial: list[bytes]) -> bytes:
        if not initial:
            self.peer.send(b"334 " + base64.b64encode(text) + b"\r\n")
            initial = [self.peer.read_line()]
        return base64.b64decode(initial[0], validate=True)

    def transact(self, verb: str, line: bytes) -> bytes:
        if not self.authenticated:
            self.drop_chunk(verb, line)
            return self.say(verb, b"530 5.7.0 log in first\r\n", line)
        wrong_turn = self.mail_from is not None if verb == "MAIL" else self.mail_from is None
        if wrong_turn or (verb in {"DATA", "BDAT"} and not self.recipients):
            self.drop_chunk(verb, line)
            return self.say(verb, b"503 5.5.1 not now\r\n", line)
        if verb == "DATA":
            return self.data(line)
        if verb == "BDAT":
            return self.bdat(line)
        reply = self.decide(verb, b"250 2.1.0 ok\r\n", line)
        if reply.startswith(b"2") and verb == "MAIL":
            self.mail_from = line
        elif reply.startswith(b"2"):
            self.recipients.append(line)
        self.peer.send(reply)
        return reply

    def data(self, line: bytes) -> bytes:
        reply = self.say("DATA", b"354 go ahead\r\n", line)
        if not reply.startswith(b"354"):
            return reply
        wire = self.peer.read_data()
        # Remove the final dot; the CRLF before it belongs to the content.
        content = (b"\r\n" + wire[: -len(b".\r\n")]).replace(b"\r\n.", b"\r\n")[2:]
        return self.finish(content, wire)

    def bdat(self, line: bytes) -> bytes:
        self.chunks.append(self.drop_chunk("BDAT", line))
        if line.upper().endswith(b" LAST"):
            content = b"".join(self.chunks)
            return self.finish(content, content, chunk=True)
        return self.say("BDAT", b"250 2.0.0 ok\r\n", line)

    def drop_chunk(self, verb: str, line: bytes) -> bytes:
        # RFC 3030 §4.2: the octets of a refused BDAT still come.
        return self.peer.read_exactly(int(line.split(b" ")[1])) if verb == "BDAT" else b""

    def finish(self, content: bytes, wire: bytes, *, chunk: bool = False) -> bytes:
        reply = self.decide("CONTENT", b"250 2.0.0 queued\r\n", content)
        if reply.startswith(b"2") and self.mail_from is not None:
            # Before the reply is written: if the connection is cut in between, the message was accepted.
            self.peer.log.accepted.append(Accepted(self.mail_from, tuple(self.recipients), content, wire))
        # RFC 3030 §2: a refused chunk leaves its transaction open.
        if reply.startswith(b"2") or not chunk:
            self.forget()
        self.chunks = []
        self.peer.send(reply)
        return reply


def _pieces(data: bytes, chunking: Chunking) -> list[bytes]:
    if chunking == "by_line":
        return re.findall(rb"[^\n]*\n|[^\n]+", data)
    if chunking == "by_byte":
        return [bytes((octet,)) for octet in data]
    return [data] if data else []
