"""
Proxies for the tests.

`tunnelled` is a server behind a proxy in one script: what one writes can come together with what the other writes, and
a scripted server can cut it at any octet. `Relay` is a proxy of its own, for any server on this machine.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

from scripted import Peer, Script

Scheme = Literal["socks5h", "http"]
SCHEMES: tuple[Scheme, ...] = ("socks5h", "http")
# What a proxy replies, in order: for SOCKS 5 to the greeting and to CONNECT, with a name as the address.
ANSWERS: dict[Scheme, tuple[bytes, ...]] = {
    "socks5h": (b"\5\0", b"\5\0\0\3\4mx.t\0\x19"),
    "http": (b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n",),
}


def tunnelled(scheme: Scheme, script: Script, answers: tuple[bytes, ...] | None = None) -> Script:
    """Return the script of a proxy, which gives *answers*, and of the server behind it."""

    def play(peer: Peer) -> None:
        for take, answer in zip(_REQUESTS[scheme], answers or ANSWERS[scheme], strict=True):
            take(peer)
            peer.send(answer)
        script(peer)

    return play


def greets_at_once(scheme: Scheme, script: Script, greeting: bytes) -> Script:
    """Return a proxy and a server in STARTTLS mode whose *greeting* comes in one segment with the proxy's answer."""

    def play(peer: Peer) -> None:
        requests, answers = _REQUESTS[scheme], ANSWERS[scheme]
        for number, (take, answer) in enumerate(zip(requests, answers, strict=True)):
            take(peer)
            peer.send(answer + (greeting if number == len(answers) - 1 else b""))
        script(peer)

    return play


def _read_methods(peer: Peer) -> None:
    peer.read_exactly(peer.read_exactly(2)[1])


def _read_target(peer: Peer) -> str:
    kind = peer.read_exactly(4)[3]
    if kind == 3:
        name = peer.read_exactly(peer.read_exactly(1)[0]).decode("ascii")
    else:
        packed = peer.read_exactly({1: 4, 4: 16}[kind])
        name = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, packed)
    return f"{name}:{int.from_bytes(peer.read_exactly(2), 'big')}"


def _read_head(peer: Peer) -> None:
    while peer.read_line():
        pass


_REQUESTS: dict[Scheme, tuple[Callable[[Peer], object], ...]] = {
    "socks5h": (_read_methods, _read_target),
    "http": (_read_head,),
}


@dataclass
class Relay:
    """
    A proxy on loopback that connects to 127.0.0.1, whatever name it is asked for.

    Attributes:
        scheme: What it speaks.
        login: The username and password that it requires.
        targets: What it was asked for, as ``host:port``.
    """

    scheme: Scheme
    login: tuple[str, str] | None = None
    targets: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._stopping, self._threads = threading.Event(), list[threading.Thread]()
        self._open = set[socket.socket]()
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    @property
    def url(self) -> str:
        """What a mailer gets as *proxy*."""
        login = "" if self.login is None else f"{self.login[0]}:{self.login[1]}@"
        return f"{self.scheme}://{login}127.0.0.1:{self.port}"

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, name=f"relay-{self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopping.is_set():
                client, _ = self._listener.accept()
                self._open.add(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            target, answer = (self._socks if self.scheme == "socks5h" else self._http)(_Reader(client))
            self.targets.append(target)
            try:
                server = socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])))
            except OSError:
                client.sendall(b"\5\5\0\1\0\0\0\0\0\0" if self.scheme == "socks5h" else b"HTTP/1.1 502 No\r\n\r\n")
                return
            self._open.add(server)
            with server:
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(answer)
                copy_until_closed(client, server)
            self._open.discard(server)
        self._open.discard(client)

    def _socks(self, reader: _Reader) -> tuple[str, bytes]:
        methods = reader.exactly(reader.exactly(2)[1])
        wanted = 0 if self.login is None else 2
        if wanted not in methods:
            reader.sock.sendall(b"\5\xff")
            raise EOFError
        reader.sock.sendall(bytes((5, wanted)))
        if self.login is not None:
            reader.exactly(1)
            got = tuple(reader.exactly(reader.exactly(1)[0]).decode() for _ in range(2))
            reader.sock.sendall(bytes((1, got != self.login)))
            if got != self.login:
                raise EOFError
        return _read_target(reader), ANSWERS["socks5h"][-1]  # type: ignore[arg-type] # it has the one method

    def _http(self, reader: _Reader) -> tuple[str, bytes]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.exactly(1)
        lines = head.decode("ascii").split("\r\n")
        login = None if self.login is None else b64encode(":".join(self.login).encode()).decode()
        if login is not None and f"Proxy-Authorization: Basic {login}" not in lines:
            reader.sock.sendall(b"HTTP/1.1 407 Log in\r\nProxy-Authenticate: Basic\r\n\r\n")
            raise EOFError
        return lines[0].split(" ")[1], ANSWERS["http"][0]


class _Reader:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    read_exactly = exactly


def copy_until_closed(client: socket.socket, server: socket.socket) -> None:
    """Copy in both directions; each end is passed on as what it was, FIN or RST."""
    other = {client: server, server: client}
    with selectors.DefaultSelector() as selector:
        for each in other:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                try:
                    data = source.recv(65536)
                    if data:
                        other[source].sendall(data)
                        continue
                    other[source].shutdown(socket.SHUT_WR)
                except OSError:
                    for each in other:
                        with contextlib.suppress(OSError):
                            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                selector.unregister(source)


@contextlib.contextmanager
def relays() -> Iterator[dict[Scheme, Relay]]:
    """Run a relay of each kind."""
    with contextlib.ExitStack() as stack:
        yield {scheme: stack.enter_context(Relay(scheme)) for scheme in SCHEMES}
