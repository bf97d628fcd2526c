"""
A light TLS server for very many messages: one thread, and a byte for each serial number says how often it came.

The serial number is the recipient's: `7@example.test`, and the content's Message-ID must begin with it, so that content
of one message under the envelope of another would be seen. A message counts when its reply is written.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.processes import child, cpu_seconds

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE\r\n"
_REPLIES = {b"EHLO": _EHLO, b"QUIT": b"221 bye\r\n", b"AUTH": b"235 welcome\r\n"}
# More than a TLS record has.
_READ = 1 << 15


@dataclass(frozen=True)
class Delivered:
    """
    What came.

    Attributes:
        once: How many serial numbers came once.
        missing: How many did not come.
        doubled: How many came more than once.
        mixed: How many messages had the content of another.
        connections: How many connections there were.
    """

    once: int
    missing: int
    doubled: int
    mixed: int
    connections: int


class CountingSink:
    """The server, seen from the process that measures."""

    def __init__(self, process: int, pipe: Connection, port: int) -> None:
        """Know where it listens."""
        self.port, self._process, self._pipe = port, process, pipe

    @property
    def cpu(self) -> float:
        """The CPU time that it has used, in seconds."""
        return cpu_seconds(self._process)

    def delivered(self) -> Delivered:
        """Return what has come so far."""
        self._pipe.send(None)
        delivered: Delivered = self._pipe.recv()
        return delivered


@contextmanager
def counting_sink(address: str, certificate: str, count: int) -> Iterator[CountingSink]:
    """Start a server for the serial numbers below *count*, and end it."""
    with child(_serve, address, certificate, count) as (process, pipe, port):
        yield CountingSink(process, pipe, port)


def _serve(address: str, certificate: str, count: int, pipe: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tally = Tally(count)
    with socket.create_server((address, 0), backlog=64) as server:
        pipe.send(server.getsockname()[1])
        threading.Thread(target=_accept, args=(server, context, tally), daemon=True).start()
        threading.Thread(target=_answer, args=(tally,), daemon=True).start()
        with suppress(EOFError):
            while True:
                pipe.recv()
                pipe.send(tally.delivered())


class Tally:
    """What came, and the connections over which it comes."""

    def __init__(self, count: int) -> None:
        self.seen, self.mixed, self.connections = bytearray(count), 0, 0
        self.open: dict[int, Session] = {}
        self.poll = select.epoll()

    def delivered(self) -> Delivered:
        once, missing = self.seen.count(1), self.seen.count(0)
        return Delivered(once, missing, len(self.seen) - once - missing, self.mixed, self.connections)


def _accept(server: socket.socket, context: ssl.SSLContext, tally: Tally) -> None:
    while True:
        # The handshake takes round trips, in which the others go on.
        threading.Thread(target=_greet, args=(server.accept()[0], context, tally), daemon=True).start()


def _greet(sock: socket.socket, context: ssl.SSLContext, tally: Tally) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError):
        tls = context.wrap_socket(sock, server_side=True)
        tls.sendall(b"220 sink\r\n")
        tls.settimeout(0)
        tally.open[tls.fileno()] = Session(tls, tally)
        tally.connections += 1
        tally.poll.register(tls.fileno(), select.EPOLLIN)


def _answer(tally: Tally) -> None:
    while True:
        for number, _ in tally.poll.poll():
            session = tally.open[number]
            if not session.read():
                # Before another connection can have the number.
                del tally.open[number]
                tally.poll.unregister(number)
                session.tls.close()


class Session:
    """One connection."""

    def __init__(self, tls: ssl.SSLSocket, tally: Tally) -> None:
        self.tls, self.tally = tls, tally
        self.pending, self.serial, self.size = b"", 0, -1

    def read(self) -> bool:
        """Read what has come, and reply to it; return False at the end of the connection."""
        replies: list[bytes] = []
        try:
            while octets := self.tls.recv(_READ):
                self.pending = self.take(self.pending + octets, replies)
                if not self.tls.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except OSError:
            return False
        else:
            if not octets:
                return False
        if replies:
            # A client that does not read its replies would stop all; none does so here.
            self.tls.settimeout(None)
            with suppress(OSError):
                self.tls.sendall(b"".join(replies))
            self.tls.settimeout(0)
        return True

    def take(self, pending: bytes, replies: list[bytes]) -> bytes:
        """Reply to all complete commands and contents in *pending*; return what is left."""
        position = 0
        while True:
            if self.size >= 0:
                if len(pending) - position < self.size:
                    break
                self._count(pending, position)
                replies.append(b"250 2.0.0 queued\r\n")
                position, self.size = position + self.size, -1
                continue
            end = pending.find(b"\n", position) + 1
            if not end:
                break
            verb = pending[position : position + 4]
            if verb == b"BDAT":
                self.size = int(pending[position + 5 : end].split()[0])
            else:
                if verb == b"RCPT":
                    # RCPT TO:<7@example.test>
                    self.serial = int(pending[position + 9 : pending.index(b"@", position, end)])
                replies.append(_REPLIES.get(verb, b"250 2.1.0 ok\r\n"))
            position = end
        return pending[position:]

    def _count(self, pending: bytes, position: int) -> None:
        if pending.find(b"\r\nMessage-ID: <%d." % self.serial, position, position + self.size) < 0:
            self.tally.mixed += 1
        # A count that stays at the most that a byte holds is as wrong as a higher one.
        self.tally.seen[self.serial] = min(self.tally.seen[self.serial] + 1, 255)
