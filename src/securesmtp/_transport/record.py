"""TLS over a non-blocking socket, a bounded step at a time."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from securesmtp.errors import ProtocolError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

T = TypeVar("T")
_READ = 16384
# Bytes up to a whole reply. A handshake may have 100 KiB of certificates (OpenSSL's limit), and two tickets follow it.
_MAX_BARREN = 1 << 18
# Bytes that TLS itself has to say, and the server does not read. An answer to a key update has some thirty.
_MAX_ANSWERS = 1 << 16


class RecordLayer:
    """
    What is sent and received over a socket in TLS (RFC 8446 §5); each call reads the socket once, for 16 KiB at most.

    A `SSLSocket` reads on within one call for as long as records come that carry nothing for the application, tickets
    and key updates, and nobody can look at a limit meanwhile (measured: 9 s, with a limit of 2 s).
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        """Put *tls*, with its two ends, over a socket from which nothing of it has been read."""
        self.tls = tls
        self._sock = sock
        self._incoming, self._outgoing = incoming, outgoing
        self._sealed = self._unsent = memoryview(b"")
        self._barren = 0
        self._failure: OSError | None = None

    def do_handshake(self) -> None:
        """
        Go on with the handshake; after an error that says so, call it again when the socket is ready.

        Raises:
            BlockingIOError: The socket must take more first.
            ssl.SSLWantReadError: The peer must say more first.
        """
        with suppress(BlockingIOError):
            self._feed()
        try:
            self._step(self.tls.do_handshake)
        except ssl.SSLWantReadError:
            # Our part of it.
            self._push()
            raise
        except ssl.SSLError:
            # The alert, for the server's log.
            with suppress(OSError):
                self._push()
            raise
        self._push()

    def recv(self, size: int) -> bytes:
        """
        Return what has come for the application, none after close_notify.

        Raises:
            BlockingIOError, ssl.SSLWantReadError: Nothing has.
            ssl.SSLEOFError: The peer ended without close_notify, which may be somebody's cut (RFC 8446 §6.1).
            ProtocolError: Very much has, and no whole reply; or it asks for answers that it does not read.
        """
        try:
            if self.pending():
                # A part of a record may be all that waits here.
                with suppress(ssl.SSLWantReadError):
                    return self._step(self.tls.read, size)
            self._feed()
            return self._step(self.tls.read, size)
        finally:
            self._answer()

    def renew(self) -> None:
        """Count anew: a reply is whole."""
        self._barren = 0

    def send(self, data: memoryview) -> int:
        """
        Write *data*, of one record, and return how much of it that is: all.

        Raises:
            BlockingIOError: The record is not written whole; call it again with the same *data*.
        """
        if not self._sealed:
            self._push()
            self._sealed = data[: self.tls.write(data)]
            self._unsent = memoryview(self._outgoing.read())
        # Not `data != self._sealed`, which looks at each octet by itself (measured: 7 % of a message of 25 MB).
        elif data.obj is not self._sealed.obj or len(data) != len(self._sealed):
            message = "another record is not written whole yet"
            raise ValueError(message)
        self._drain()
        sealed, self._sealed = self._sealed, memoryview(b"")
        return len(sealed)

    def pending(self) -> int:
        """Return how many octets were read from the socket and wait here, where no `select` sees them."""
        return self.tls.pending() or self._incoming.pending

    def _feed(self) -> None:
        octets = self._sock.recv(_READ)
        self._barren += len(octets)
        if self._barren > _MAX_BARREN:
            message = "the server sends TLS records without end, and no whole reply in them"
            raise ProtocolError(message)
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()

    @staticmethod
    def _step(act: Callable[..., T], *arguments: int) -> T:
        try:
            return act(*arguments)
        except ssl.SSLError as error:
            # Python 3.11.2 raises the base class (measured), which would be reported as a refused handshake.
            if error.reason == "UNEXPECTED_EOF_WHILE_READING":
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, error.strerror) from error
            raise

    def _answer(self) -> None:
        """Write answers to key updates, or the alert; what cannot be written keeps nothing from being read."""
        with suppress(OSError):
            self._push()
        if self._outgoing.pending > _MAX_ANSWERS:
            message = "the server asks for answers of TLS without end, and reads none of them"
            raise ProtocolError(message)

    def _push(self) -> None:
        # Not the rest of a record of the application, which `send` alone counts as written, nor what comes behind it.
        while not self._sealed and (self._unsent or self._outgoing.pending):
            self._unsent = self._unsent or memoryview(self._outgoing.read())
            self._drain()

    def _drain(self) -> None:
        # After a write that failed nothing more is written, whoever asks.
        if self._failure is not None:
            raise self._failure
        while self._unsent:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                raise
            except OSError as error:
                self._failure = error
                raise
