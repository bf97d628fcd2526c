"""A TCP proxy that breaks connections: by FIN, by RST, by silence, by refusal, at octets that a seed chooses."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

Fault = Literal["none", "fin", "rst", "stall", "refuse", "idle"]
_WEIGHTS: dict[Fault, int] = {"none": 10, "fin": 35, "rst": 35, "stall": 3, "refuse": 7, "idle": 10}
# A handshake and a login are some 5,000 octets, a message some 500: a cut at any of them is as likely as beyond.
_MOST_OCTETS = 20_000
# "idle" closes a connection that has been silent for so many seconds, as impatient servers do.
_IDLE = 0.05
_LONGEST = 60.0


class Proxy:
    """Listen on loopback, and forward to what *target* says for each connection."""

    def __init__(self, target: Callable[[], int], seed: int, silence: float) -> None:
        """Listen at once; a stall lasts *silence* seconds and ends the connection."""
        self.faults: Counter[Fault] = Counter()
        self.calm = False
        self._target, self._silence = target, silence
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    def close(self) -> None:
        """Accept no more, end all connections, and wait for their threads."""
        self._stopping.set()
        # A thread in accept() is woken by a connection, not by the end of the listener.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        """Return the proxy."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            client, _ = self._listener.accept()
            fault: Fault = "none"
            if not self.calm:
                (fault,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            at = int(_MOST_OCTETS ** self._random.random())
            self.faults[fault] += 1
            thread = threading.Thread(target=self._serve, args=(client, fault, at), name="proxy")
            self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
            thread.start()

    def _serve(self, client: socket.socket, fault: Fault, at: int) -> None:
        with client:
            if fault == "refuse" or self._stopping.is_set():
                _reset(client)
                return
            # A server that is being restarted: the client's connection ends at once.
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._target()), 5) as server:
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._forward(client, server, fault, at)

    def _forward(self, client: socket.socket, server: socket.socket, fault: Fault, at: int) -> None:
        other = {client: server, server: client}
        seen = 0
        with selectors.DefaultSelector() as selector:
            for sock in other:
                selector.register(sock, selectors.EVENT_READ)
            while not self._stopping.is_set():
                ready = selector.select(_IDLE if fault == "idle" else 0.5)
                if not ready and fault == "idle":
                    return
                for source in (key.fileobj for key, _ in ready):
                    assert isinstance(source, socket.socket)
                    octets = source.recv(65536)
                    if fault in {"fin", "rst", "stall"} and seen + len(octets) >= at:
                        other[source].sendall(octets[: at - seen])
                        self._break(client, server, fault)
                        return
                    seen += len(octets)
                    other[source].sendall(octets)
                    if not octets:
                        return

    def _break(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        if fault == "stall":
            self._stopping.wait(self._silence)
        elif fault == "rst":
            _reset(client)
            _reset(server)
        else:
            for sock in (client, server):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
            # What still comes is thrown away: to close with octets unread would send RST.
            for sock in (client, server):
                sock.settimeout(1)
                with suppress(OSError):
                    while sock.recv(65536):
                        pass


def _reset(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
