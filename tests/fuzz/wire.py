"""The real link over a socket that is a list of what the server will say: no descriptor, no thread, no clock."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import Literal, cast

from securesmtp import SecureMailer
from securesmtp._transport.addresses import AddressInfo
from securesmtp._transport.channel import Channel, Steps
from securesmtp._transport.deadline import Deadline
from securesmtp._transport.link import Link
from securesmtp._transport.tls_records import RecordLayer
from securesmtp._values import TLSMode

Said = tuple[Literal["client", "server"], bytes]


class Wire:
    """Stand for a socket, plain and, once it was wrapped, in TLS; keep both sides in their order."""

    tls = None

    def __init__(self, pieces: list[bytes]) -> None:
        self.clear = bytearray()
        self.secret = bytearray()
        self.log: list[Said] = []
        self.encrypted = self.closed = self.ended = False
        self.upgraded_after: bytes | None = None
        self._pieces = pieces
        self._here = b""

    def wrap(self, context: object, sock: Wire, name: str) -> Wire:
        """Begin TLS."""
        if self.clear:
            at = max(number for number, (who, _) in enumerate(self.log) if who == "client")
            self.upgraded_after = b"".join(octets for _, octets in self.log[at + 1 :])
        self.encrypted = True
        return sock

    def wait(self) -> bool:
        """Let the next piece come, or the end; return False where there is silence up to the limit."""
        if not self._pieces:
            self.ended = True
            return True
        self._here = self._pieces.pop(0)
        return bool(self._here)

    def recv(self, most: int) -> bytes:
        if not self._here and self._pieces and self._pieces[0].startswith(b"!"):
            self._here = self._pieces.pop(0)[1:]
            if not self._here:
                raise ConnectionResetError
        if not self._here and not self.ended:
            raise BlockingIOError
        octets, self._here = self._here[:most], self._here[most:]
        if octets:
            self.log.append(("server", octets))
        return octets

    def pending(self) -> int:
        return 0

    def reset_byte_count(self) -> None:
        """Count nothing: there are no records."""

    def send(self, octets: memoryview) -> int:
        assert not self.closed
        (self.secret if self.encrypted else self.clear).extend(octets)
        self.log.append(("client", bytes(octets)))
        return len(octets)

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def close(self) -> None:
        self.closed = True


class MemoryChannel(Channel):
    """The channel, over a `Wire`."""

    def __init__(self, wire: Wire, mode: TLSMode) -> None:
        super().__init__(SETTINGS[mode], cast("ssl.SSLContext", None))
        self._wire_to_be = wire

    def connect(self, found: Iterable[AddressInfo]) -> Steps[None]:
        self.sock = cast("socket.socket", self._wire_to_be)
        yield from ()

    def binding(self) -> None:
        """Return none: there is no TLS."""

    def _handshake(self, records: RecordLayer) -> Steps[None]:
        yield from ()


class MemoryLink(Link):
    """The link, over a `Wire`."""

    wire: Wire

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        self._drive(self.connection.connect([]))
        return self.connection.channel.connected_socket()

    def _wait_for_socket(self, events: int) -> None:
        if not self.wire.wait():
            Deadline(self.connection.limit._name, 0).left(self.connection.limit.stage)


SETTINGS = {mode: SecureMailer("mx.example.org", tls=mode)._settings for mode in TLSMode}


def memory_link(wire: Wire, mode: TLSMode) -> MemoryLink:
    """Return a link that will find *wire* when it connects."""
    link = MemoryLink(SETTINGS[mode], cast("ssl.SSLContext", None))
    link.wire = wire
    link.connection.channel = link.connection.transfer.channel = MemoryChannel(wire, mode)
    return link
