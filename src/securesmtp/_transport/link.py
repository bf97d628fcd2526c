"""
The driver of a connection in one thread: it waits by `select`.

It is a `smtplib.SMTP` with our own socket, reader and writer. Stock smtplib takes half a line for a reply, reads
without bound, applies its timeout to each read instead of to the whole step, and drops injected text (all measured).
Every stock command goes through `putcmd`, which refuses: there is no second way to write.
"""

from __future__ import annotations

import selectors
import smtplib
import socket
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from securesmtp._protocol.effects import Adapt, FetchPassword, FetchToken, Respond
from securesmtp._transport.channel import PAUSE, WaitForAny
from securesmtp._transport.connection import Connection, Opening
from securesmtp._transport.hook import call_hook
from securesmtp._transport.steps import drive

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from securesmtp._protocol.effects import Dialogue
    from securesmtp._protocol.redaction import Memory
    from securesmtp._protocol.wire import RawReply
    from securesmtp._settings import Settings
    from securesmtp._transport.addresses import AddressInfo
    from securesmtp._transport.channel import Steps

T = TypeVar("T")
Wanted: TypeAlias = int | WaitForAny | FetchPassword | FetchToken | Adapt | Respond | Opening
# `poll` needs no file descriptor of its own, which a forked child would share.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Link(smtplib.SMTP):
    """One connection to the configured server; it is opened once, and no caller gets it."""

    def __init__(self, settings: Settings, context: ssl.SSLContext, memory: Memory | None = None) -> None:
        """Start unconnected; *memory* has the mailer's secrets, which no reply may show."""
        # A host would make smtplib connect here, and a missing name would make it ask the resolver for ours.
        super().__init__(host="", local_hostname="[127.0.0.1]", source_address=settings.source_address)
        self.connection = Connection(settings, context, memory)
        self._settings = settings
        self._greeting: RawReply | None = None
        self._selector: selectors.BaseSelector = Selector()
        # What the selector waits for; 0 before the first wait.
        self._watched = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self.connection.is_open

    @property
    def is_usable(self) -> bool:
        """Whether its last dialogue ended cleanly, and the server has not said that it closes."""
        return self.connection.is_usable

    def run(self, dialogue: Dialogue[T]) -> T:
        """Perform *dialogue* and return its value, as `Connection.run` says."""
        return self._drive(self.connection.run(dialogue))

    def close_gracefully(self, dialogue: Dialogue[None]) -> None:
        """Run the last *dialogue* if the session is usable, and close."""
        self._drive(self.connection.close_gracefully(dialogue))

    def is_idle(self) -> bool:
        """Return whether the connection can carry another message."""
        return self.connection.is_idle()

    def open(self) -> RawReply | None:
        """Connect, begin TLS in implicit mode, and return the greeting."""
        self.connect(self._settings.host, self._settings.port)
        return self._greeting

    @staticmethod
    def look_up(host: str, port: int) -> Sequence[AddressInfo]:
        """
        Return the addresses to connect to.

        Raises:
            OSError: The name has none, or the system cannot find out.
        """
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    def abort(self) -> None:
        """Shut the connection down from another thread: a wait for it ends, and the thread that uses it closes it."""
        self.connection.channel.abort()

    # What smtplib calls.

    def putcmd(self, cmd: str, args: str = "") -> NoReturn:
        """Refuse: `wire.line` alone builds commands, and every stock command would come through here."""
        raise NotImplementedError

    def send(self, s: object) -> NoReturn:
        """Refuse: whatever is written passes `Exchange.release`."""
        raise NotImplementedError

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 -- smtplib's signature
        settings, connection = self._settings, self.connection
        if settings.connect is not None:
            self._drive(connection.adopt(call_hook(settings.connect, host, port, connection.patience())))
        else:
            place = settings.proxy or settings
            self._drive(connection.connect(self.look_up(place.host, place.port)))
        return connection.channel.connected_socket()

    def getreply(self) -> tuple[int, bytes]:
        """Read the greeting for `smtplib.SMTP.connect`; all other replies are read as effects."""
        self._greeting = self._drive(self.connection.greet())
        return self._greeting.code, b"\n".join(self._greeting.lines)

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        # smtplib keeps its own reference to the socket.
        self.sock = None
        self.connection.close()

    # What waits.

    def _drive(self, steps: Steps[T]) -> T:
        return drive(steps, self._wait)

    def _wait(self, wanted: Wanted) -> object:
        """Do what the steps ask for, and return what they are resumed with."""
        match wanted:
            case int():
                if wanted != PAUSE:
                    self._wait_for_socket(wanted)
                return None
            case WaitForAny():
                return self._wait_for_any(wanted)
            case Opening():
                return self.open()
            case _:
                return wanted.perform()

    def _wait_for_socket(self, events: int) -> None:
        connection = self.connection
        patience, sock = connection.patience(), connection.channel.connected_socket()
        connection.channel.acknowledge()
        if events != self._watched:
            (self._selector.modify if self._watched else self._selector.register)(sock.fileno(), events)
            self._watched = events
        # What has arrived is read before any limit is reported as expired.
        if self._selector.select(patience):
            connection.channel.refuse_if_aborted()
        else:
            connection.patience()

    def _wait_for_any(self, wanted: WaitForAny) -> list[object]:
        patience = self.connection.patience()
        with Selector() as selector:
            for sock in wanted.sockets:
                selector.register(sock, selectors.EVENT_WRITE)
            ready = selector.select(patience if wanted.delay is None else min(patience, wanted.delay))
        return [key.fileobj for key, _ in ready]
