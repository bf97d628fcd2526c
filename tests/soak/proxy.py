"""A TCP proxy that breaks connections; a seed chooses each one's fault and the octet at which it happens."""

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

# none    no fault
# fin     both sides get FIN, and what still comes is lost
# rst     both sides are reset
# pause   nothing passes for a while, then everything
# late    the same, for longer than clients wait: the server reads what its client has given up
# deaf    nothing more reaches the client, everything reaches the server
# unheard everything reaches the server, and the client is reset instead of getting the next reply
# refuse  reset at once, and the port is closed for a moment
# idle    closed when idle for a short time, as impatient servers do
Fault = Literal["none", "fin", "rst", "pause", "late", "deaf", "unheard", "refuse", "idle"]
_WEIGHTS: dict[Fault, int] = {
    "none": 10,
    "fin": 22,
    "rst": 22,
    "pause": 8,
    "late": 4,
    "deaf": 4,
    "unheard": 16,
    "refuse": 4,
    "idle": 10,
}
_AT_AN_OCTET = {"fin", "rst", "pause", "late", "deaf", "unheard"}
# A handshake and a login take some 5,000 octets, most messages some 700. A quarter of the cuts is before the first
# message, early octets more likely than late ones; the other cuts are evenly distributed.
_BEFORE_MESSAGES, _EARLY_SHARE = 5_000, 0.25
_MOST_OCTETS = 18_000
# Seconds of silence after which "idle" closes, for which "refuse" refuses, and for which "pause" pauses at most.
_IDLE, _REFUSAL, _PAUSE = 0.05, 0.2, 0.8
# Below the range of ephemeral ports, so that no other process gets the port while the proxy does not listen.
_PORTS = (20_000, 32_000)


class Proxy:
    """Listen on loopback; forward each connection to the address that *target* returns."""

    def __init__(self, target: Callable[[], int], seed: int, patience: float) -> None:
        """Listen at once; *patience* is the number of seconds that no client waits longer than."""
        self.faults: Counter[Fault] = Counter()
        self._target, self._patience = target, patience
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._listener = self._listen_anywhere()
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening, end all connections, wait for their threads; may be called twice."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def __enter__(self) -> Self:
        """Return the proxy."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _listen_anywhere(self) -> socket.socket:
        while True:
            # Not chosen by the seed: two runs with the same seed may run at the same time.
            with suppress(OSError):
                return self._listen(random.randint(*_PORTS))

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.settimeout(0.2)
        return listener

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            (fault,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            at = self._random.randint(0, _MOST_OCTETS)
            # Not "unheard": before any message, it is the same as "rst".
            if self._random.random() < _EARLY_SHARE and fault != "unheard":
                at = int(_BEFORE_MESSAGES ** self._random.random())
            pause = self._random.uniform(0, _PAUSE)
            self.faults[fault] += 1
            if fault == "refuse":
                _reset(client)
                self._refuse()
                continue
            wait = pause if fault == "pause" else self._patience
            thread = threading.Thread(target=self._serve, args=(client, fault, at, wait), name="proxy")
            self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
            thread.start()

    def _refuse(self) -> None:
        self._listener.close()
        self._stopping.wait(_REFUSAL)
        self._listener = self._listen(self.port)

    def _serve(self, client: socket.socket, fault: Fault, at: int, wait: float) -> None:
        # The server is being restarted, so the client's connection ends at once.
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._target()), 5) as server:
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._forward(client, server, fault, at, wait)

    def _forward(self, client: socket.socket, server: socket.socket, fault: Fault, at: int, wait: float) -> None:
        other = {client: server, server: client}
        seen, deaf = 0, False
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
                    # Postfix delays a small write until the one before is acknowledged: 40 ms per message.
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    if not octets and not (deaf and source is server):
                        return
                    if not octets:
                        # The client does not get this either.
                        selector.unregister(server)
                    if fault in _AT_AN_OCTET and seen + len(octets) >= at and (source, fault) != (client, "unheard"):
                        if fault == "unheard":
                            _reset(client)
                            _end(server)
                            return
                        deaf = _pass(octets[: at - seen], other[source], server) or deaf
                        octets = octets[at - seen :]
                        if fault in {"fin", "rst"}:
                            _break(client, server, fault)
                            return
                        if fault == "deaf":
                            deaf = True
                        else:
                            self._stopping.wait(wait)
                        fault = "none"
                    seen += len(octets)
                    if source is client or not deaf:
                        deaf = _pass(octets, other[source], server) or deaf


def _pass(octets: bytes, to: socket.socket, server: socket.socket) -> bool:
    """Write *octets*; return True if the receiver has left, in which case what it wrote may still be in transit."""
    try:
        to.sendall(octets)
    except OSError:
        if to is server:
            raise
        return True
    return False


def _break(client: socket.socket, server: socket.socket, fault: Fault) -> None:
    if fault == "rst":
        _reset(client)
        _reset(server)
        return
    _end(client, server)


def _end(*socks: socket.socket) -> None:
    for sock in socks:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    # Discard what still comes: closing with unread octets would send RST.
    for sock in socks:
        sock.settimeout(1)
        with suppress(OSError):
            while sock.recv(65536):
                pass


def _reset(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
