"""TLS over a non-blocking socket, in bounded steps."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from securesmtp._interrupts import SuppressErrors
from securesmtp.errors import ProtocolError
from securesmtp.events import is_interrupt

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

T = TypeVar("T")
# Bytes that one call reads from the socket.
_READ_SIZE = 16384
# Bytes from the socket per reply. A handshake has up to 100 KiB of certificates (OpenSSL's limit) and two tickets.
_MAX_BYTES_PER_REPLY = 1 << 18
# Bytes of TLS's own messages that the server has not read. One response to a key update has about 30.
_MAX_RESPONSES = 1 << 16
_SOCKET_ERRORS_SUPPRESSED = SuppressErrors(OSError)


class RecordLayer:
    """
    The record layer of TLS (RFC 8446 §5) over a non-blocking socket; each call reads the socket once, 16 KiB at most.

    Why not `ssl.SSLSocket`: one call of its ``recv`` continues as long as records without application data arrive
    (tickets, key updates), and no time limit is checked meanwhile (measured: 9 s, with a limit of 2 s).
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        """Connect *tls*, through its two buffers, to *sock*, from which no byte of TLS was read yet."""
        self.tls = tls
        self._sock = sock
        self._incoming, self._outgoing = incoming, outgoing
        # Plaintext of the record that is being written, and the encrypted bytes not yet written.
        self._pending_plaintext = self._unsent = memoryview(b"")
        self._bytes_since_reply = 0
        self._write_error: OSError | None = None

    def do_handshake(self) -> None:
        """
        Continue the handshake. After one of these errors, call it again when the socket is ready.

        Raises:
            BlockingIOError: The socket must accept more bytes first.
            ssl.SSLWantReadError: The server must send more bytes first.
        """
        with suppress(BlockingIOError):
            self._read_socket()
        try:
            self._call_tls(self.tls.do_handshake)
        except ssl.SSLWantReadError:
            # The client's next handshake messages.
            self._flush()
            raise
        except ssl.SSLError:
            # The alert, for the server's log.
            with _SOCKET_ERRORS_SUPPRESSED:
                self._flush()
            raise
        self._flush()

    def recv(self, size: int) -> bytes:
        """
        Return application data, at most *size* bytes; empty after close_notify.

        Raises:
            BlockingIOError, ssl.SSLWantReadError: There is none yet.
            ssl.SSLEOFError: The connection ended without close_notify, perhaps by an attacker (RFC 8446 §6.1).
            ProtocolError: The server sent too many bytes without a complete reply, or requests responses of TLS that it
                does not read.
        """
        try:
            if self._incoming.pending or self.tls.pending():
                # The buffer may hold only part of a record.
                with suppress(ssl.SSLWantReadError):
                    return self._call_tls(self.tls.read, size)
            self._read_socket()
            return self._call_tls(self.tls.read, size)
        finally:
            if self._unsent or self._outgoing.pending:
                self._send_responses()

    def reset_byte_count(self) -> None:
        """Restart the count of received bytes; the caller has parsed a complete reply."""
        self._bytes_since_reply = 0

    def send(self, data: memoryview) -> int:
        """
        Write *data* as one record and return its length.

        Raises:
            BlockingIOError: The record is not completely written; call again with the same *data*.
        """
        if not self._pending_plaintext:
            self._flush()
            self._pending_plaintext = data[: self.tls.write(data)]
            self._unsent = memoryview(self._outgoing.read())
        # `!=` on memoryviews compares byte by byte (measured: 7 % of the time of a message of 25 MB).
        elif data.obj is not self._pending_plaintext.obj or len(data) != len(self._pending_plaintext):
            message = "the previous record is not completely written yet"
            raise ValueError(message)
        self._write_unsent()
        written, self._pending_plaintext = self._pending_plaintext, memoryview(b"")
        return len(written)

    def pending(self) -> int:
        """Return how many bytes were read from the socket and are buffered here, where `select` does not see them."""
        return self._incoming.pending or self.tls.pending()

    def _read_socket(self) -> None:
        data = self._sock.recv(_READ_SIZE)
        self._bytes_since_reply += len(data)
        if self._bytes_since_reply > _MAX_BYTES_PER_REPLY:
            message = "the server keeps sending TLS records without a complete reply"
            raise ProtocolError(message)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    @staticmethod
    def _call_tls(method: Callable[..., T], *arguments: int) -> T:
        try:
            return method(*arguments)
        except ssl.SSLError as error:
            # Python 3.11.2 raises the base class (measured), which would be reported as a failed handshake.
            if error.reason == "UNEXPECTED_EOF_WHILE_READING":
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, error.strerror) from error
            raise

    def _send_responses(self) -> None:
        """Write responses to key updates, or the alert; an error in writing does not stop reading."""
        with _SOCKET_ERRORS_SUPPRESSED:
            self._flush()
        if self._outgoing.pending > _MAX_RESPONSES:
            message = "the server keeps requesting TLS responses and reads none of them"
            raise ProtocolError(message)

    def _flush(self) -> None:
        # `send` alone writes the rest of an application record, since it counts what is written. Anything else waits.
        while not self._pending_plaintext and (self._unsent or self._outgoing.pending):
            self._unsent = self._unsent or memoryview(self._outgoing.read())
            self._write_unsent()

    def _write_unsent(self) -> None:
        # After a failed write nothing more is written.
        if self._write_error is not None:
            raise self._write_error
        while self._unsent:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                raise
            except OSError as error:
                # An interrupt is raised once.
                self._write_error = OSError("a write was interrupted") if is_interrupt(error) else error
                raise
