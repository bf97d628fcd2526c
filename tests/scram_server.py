"""The server's side of SCRAM, played by scramp."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress

import scramp

from scripted import Peer
from securesmtp._protocol.sasl import ChannelBinding


class Server:
    """One account of a server: scramp's side of the exchange."""

    def __init__(self, name: str, username: str, password: str, binding: ChannelBinding | None = None) -> None:
        """Store *password* as SCRAM does."""
        mechanism = scramp.ScramMechanism(name)
        info = mechanism.make_auth_info(password)
        self.asked: list[str] = []

        def look_up(user: str) -> object:
            self.asked.append(user)
            return info

        pair = None if binding is None else (binding.kind, binding.data)
        self.scram = mechanism.make_server(look_up, channel_binding=pair)

    def first(self, message: bytes) -> bytes:
        """Return the server's first message."""
        self.scram.set_client_first(message.decode())
        return self.scram.get_server_first().encode()  # type: ignore[no-any-return]

    def final(self, message: bytes) -> bytes:
        """Return the server's final message."""
        with suppress(scramp.ScramException):
            self.scram.set_client_final(message.decode())
        return self.scram.get_server_final().encode()  # type: ignore[no-any-return]


def exchange(
    username: str, password: str, bind: Callable[[Peer], ChannelBinding | None]
) -> Callable[[Peer, bytes], bytes]:
    """Return the reply to AUTH of a server with one account, after the exchange; *bind* says which binding it has."""

    def reply(peer: Peer, line: bytes) -> bytes:
        _, name, initial = line.split(b" ")
        binding = bind(peer)
        server = Server(name.decode(), username, password, binding)
        try:
            first = server.first(base64.b64decode(initial))
        except scramp.ScramException:
            return b"535 5.7.8 no\r\n"
        peer.send(b"334 " + base64.b64encode(first) + b"\r\n")
        final = server.final(base64.b64decode(peer.read_line()))
        if final.startswith(b"e="):
            return b"535 5.7.8 no\r\n"
        peer.send(b"334 " + base64.b64encode(final) + b"\r\n")
        assert peer.read_line() == b""
        return b"235 2.7.0 welcome\r\n"

    return reply


def tls_unique(peer: Peer) -> ChannelBinding | None:
    """Return the channel binding of the server's own TLS session."""
    assert peer.tls is not None
    data = peer.tls.get_channel_binding("tls-unique")
    return None if data is None else ChannelBinding("tls-unique", data)
