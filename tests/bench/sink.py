"""
A light TLS server that takes everything, counts flights, and can be far away; each part is a process of its own.

The delay is a proxy's, not the kernel's: `tc netem` is not in every kernel. It holds every octet back for half of the
round trip in each direction, and the first of a connection for a whole one more, which is TCP's own handshake.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.processes import child

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_READ = 1 << 18
_SHOWN = 20
_REPLIES = {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n", b"AUTH": b"235 welcome\r\n"}


@dataclass
class Counts:
    """
    What came.

    Attributes:
        flights: How often something was answered; a flight is what is answered at once, QUIT not counted.
        messages: How many were taken.
        said: What each of the first flights was made of, and the codes that answered it.
    """

    flights: int = 0
    messages: int = 0
    said: list[tuple[list[str], list[str]]] = field(default_factory=list)


class Sink:
    """The server, seen from the process that measures."""

    def __init__(self, port: int, pipe: Connection) -> None:
        """Know where it listens."""
        self.port, self._pipe = port, pipe

    def counted(self) -> Counts:
        """Return what was counted since the last call."""
        self._pipe.send(None)
        counts: Counts = self._pipe.recv()
        return counts


@contextmanager
def sink(certificate: str, offer: str, address: str = "127.0.0.1") -> Iterator[Sink]:
    """Start a server that offers what *offer* says, and end it."""
    with child(_serve, certificate, offer, address) as (_, pipe, port):
        yield Sink(port, pipe)


@contextmanager
def distance(port: int, rtt: float) -> Iterator[int]:
    """Put a round trip of *rtt* seconds before the *port*, and give the port that is so far away."""
    if not rtt:
        yield port
        return
    with child(_relay, port, rtt) as (_, _, far):
        yield far


def _serve(certificate: str, offer: str, address: str, pipe: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    words = ["sink", *offer.split(), "8BITMIME", "AUTH PLAIN LOGIN", "SIZE"]
    ehlo = "".join(f"250{' ' if word is words[-1] else '-'}{word}\r\n" for word in words).encode()
    counts = Counts()
    with socket.create_server((address, 0), backlog=64) as server:
        pipe.send(server.getsockname()[1])
        threading.Thread(target=_accept, args=(server, context, ehlo, counts), daemon=True).start()
        with suppress(EOFError):
            while True:
                pipe.recv()
                pipe.send(counts)
                # The same object, which the connections have.
                counts.flights, counts.messages, counts.said = 0, 0, []


def _accept(server: socket.socket, context: ssl.SSLContext, ehlo: bytes, counts: Counts) -> None:
    while True:
        sock = server.accept()[0]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_take, args=(context, sock, ehlo, counts), daemon=True).start()


def _take(context: ssl.SSLContext, sock: socket.socket, ehlo: bytes, counts: Counts) -> None:
    with suppress(OSError), context.wrap_socket(sock, server_side=True) as tls:
        tls.sendall(b"220 sink\r\n")
        converse(tls, ehlo, counts)


def converse(tls: ssl.SSLSocket, ehlo: bytes, counts: Counts) -> None:
    """Answer what comes over *tls*, after the greeting, until its end."""
    with suppress(OSError):
        said, chunk, content = b"", 0, False
        while octets := tls.recv(_READ):
            said, words, replies = said + octets, list[str](), list[bytes]()
            goodbye = said.startswith(b"QUIT")
            while said:
                if content:
                    end = said.find(b"\r\n.\r\n")
                    if end < 0:
                        said = said[-4:]
                        break
                    said, content = said[end + 5 :], False
                    replies.append(b"250 queued\r\n")
                    words.append("content")
                    counts.messages += 1
                elif chunk:
                    taken = min(chunk, len(said))
                    said, chunk = said[taken:], chunk - taken
                    if not chunk:
                        replies.append(b"250 queued\r\n")
                        words.append("BDAT with content")
                        counts.messages += 1
                elif b"\n" in said:
                    line, _, said = said.partition(b"\n")
                    verb = line[:4].upper()
                    if verb == b"BDAT":
                        chunk = int(line.split()[1])
                        continue
                    words.append(verb.decode("ascii"))
                    replies.append(ehlo if verb == b"EHLO" else _REPLIES.get(verb, b"250 ok\r\n"))
                    if content := verb == b"DATA":
                        # An empty content is ended by a line of its own.
                        said = b"\r\n" + said
                else:
                    break
            if replies:
                counts.flights += not goodbye
                if len(counts.said) < _SHOWN:
                    counts.said.append((words, [reply[:3].decode("ascii") for reply in replies]))
                # Last: who has the answer may ask for the counts.
                tls.sendall(b"".join(replies))


def _relay(port: int, rtt: float, pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        pipe.send(server.getsockname()[1])
        ways: dict[socket.socket, _Way] = {}
        while True:
            now = time.monotonic()
            due = min((way.held[0][0] for way in ways.values() if way.held), default=now + 1)
            ready = select.select([server, *(each for each in ways if ways[each].is_open)], [], [], max(0.0, due - now))
            for each in ready[0]:
                if each is server:
                    client, far = server.accept()[0], socket.create_connection(("127.0.0.1", port))
                    for one, other, first in ((client, far, rtt), (far, client, 0.0)):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        ways[one] = _Way(other, time.monotonic() + first)
                else:
                    ways[each].take(each, rtt / 2)
            now = time.monotonic()
            for each, way in list(ways.items()):
                way.give(now)
                if not way.is_open and not way.held:
                    # The other way has its own end.
                    del ways[each]


class _Way:
    """One direction of one connection: what was read, and when it is to be written."""

    def __init__(self, target: socket.socket, opened: float) -> None:
        self.target, self.opened = target, opened
        self.is_open = True
        self.held: deque[tuple[float, bytes]] = deque()

    def take(self, source: socket.socket, delay: float) -> None:
        try:
            octets = source.recv(_READ)
        except OSError:
            octets = b""
        self.is_open = bool(octets)
        self.held.append((max(time.monotonic(), self.opened) + delay, octets))

    def give(self, now: float) -> None:
        while self.held and self.held[0][0] <= now:
            octets = self.held.popleft()[1]
            with suppress(OSError):
                if octets:
                    self.target.sendall(octets)
                else:
                    self.target.shutdown(socket.SHUT_WR)
